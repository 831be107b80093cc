"""S3-compatible storage: four calls of boto3, in threads, bounded in time, faults mapped to StorageUnavailable."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any, TypeVar

from shared.config import S3Config
from shared.errors import StorageUnavailable

Result = TypeVar("Result")

CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 30
ATTEMPTS = 3
THREADS = 8


class S3:
    """Whole objects only. boto3 retries (all four calls are idempotent), so nothing above does.

    boto3 is imported at first use: it costs 30 MB, and a deployment with small payloads never needs it.
    """

    def __init__(self, settings: S3Config) -> None:
        self._settings = settings
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="s3")

    @cached_property
    def _client(self) -> Any:
        import boto3  # noqa: PLC0415  (see the class docstring)
        from botocore.config import Config  # noqa: PLC0415

        settings = self._settings
        return boto3.client(
            "s3",
            endpoint_url=settings.endpoint_url,
            aws_access_key_id=settings.access_key_id,
            aws_secret_access_key=settings.secret_access_key.get_secret_value(),
            region_name=settings.region,
            config=Config(
                connect_timeout=CONNECT_TIMEOUT_S,
                read_timeout=READ_TIMEOUT_S,
                retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
                s3={"addressing_style": "path"},
                # Stores other than AWS know no trailing checksums.
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )

    async def put(self, key: str, data: bytes) -> None:
        bucket = self._settings.bucket
        await self._call("put", lambda: self._client.put_object(Bucket=bucket, Key=key, Body=data))

    async def get(self, key: str) -> bytes | None:
        """The object, None where there is none."""
        return await self._call("get", lambda: self._read(key))

    async def delete(self, keys: Sequence[str]) -> None:
        """Remove objects (at most 1,000); those that are not there are no error."""
        listed = {"Objects": [{"Key": key} for key in keys], "Quiet": True}
        bucket = self._settings.bucket
        answer = await self._call("delete", lambda: self._client.delete_objects(Bucket=bucket, Delete=listed))
        # A 200 may carry refusals of single objects.
        if errors := answer.get("Errors"):
            raise StorageUnavailable(f"storage refused delete: {errors[0].get('Code', 'unknown')}")

    async def check(self) -> None:
        bucket = self._settings.bucket
        await self._call("check", lambda: self._client.list_objects_v2(Bucket=bucket, MaxKeys=1))

    def _read(self, key: str) -> bytes | None:
        from botocore.exceptions import (  # noqa: PLC0415  (loaded with the client)
            ClientError,
            IncompleteReadError,
            ResponseStreamingError,
        )

        attempt = 1
        while True:
            try:
                data: bytes = self._client.get_object(Bucket=self._settings.bucket, Key=key)["Body"].read()
            except ClientError as error:
                if error.response.get("Error", {}).get("Code") in ("NoSuchKey", "404"):
                    return None
                raise
            except (IncompleteReadError, ResponseStreamingError):
                # A body that breaks off is not retried by boto3, which is done once it has the headers.
                if attempt == ATTEMPTS:
                    raise
                attempt += 1
            else:
                return data

    async def _call(self, name: str, call: Callable[[], Result]) -> Result:
        def guarded() -> Result:
            from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError  # noqa: PLC0415

            try:
                return call()
            except ClientError as error:
                code = error.response.get("Error", {}).get("Code", "unknown")
                raise StorageUnavailable(f"storage refused {name}: {code}") from None
            except (BotoCoreError, HTTPClientError, OSError) as error:
                raise StorageUnavailable(f"storage did not answer {name}: {type(error).__name__}") from None

        return await asyncio.get_running_loop().run_in_executor(self._threads, guarded)
