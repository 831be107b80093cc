"""S3 in memory with S3's own errors, behind the product's adapter: what boto3's client would have done."""

import io
from collections.abc import Callable
from typing import Any

from botocore.exceptions import ClientError, ReadTimeoutError, ResponseStreamingError

from tests.soak.faults import STORAGE, Faults


class Bucket:
    """The calls of boto3 that the product makes. Faults as they look once boto3 has given up its retries."""

    def __init__(self, faults: Faults, now_s: Callable[[], float]) -> None:
        self.objects: dict[str, bytes] = {}
        self._faults = faults
        self._now_s = now_s

    def put_object(self, *, Bucket: str, Key: str, Body: bytes) -> None:  # noqa: N803 - boto3's names
        fault = self._fault("put")
        if fault == "s3_timeout_after_write":
            self.objects[Key] = Body
            raise ReadTimeoutError(endpoint_url="s3")
        self.objects[Key] = Body

    def get_object(self, *, Bucket: str, Key: str) -> dict[str, Any]:  # noqa: N803 - boto3's names
        fault = self._fault("get")
        if fault == "s3_missing" or Key not in self.objects:
            raise _refusal("NoSuchKey", "get")
        if fault == "s3_truncated":
            return {"Body": _Cut()}
        return {"Body": io.BytesIO(self.objects[Key])}

    def delete_objects(self, *, Bucket: str, Delete: dict[str, Any]) -> dict[str, Any]:  # noqa: N803 - boto3's names
        self._fault("delete")
        for item in Delete["Objects"]:
            self.objects.pop(item["Key"], None)
        return {}

    def list_objects_v2(self, **wanted: Any) -> dict[str, Any]:
        return {}

    def _fault(self, operation: str) -> str | None:
        fault = self._faults.draw(self._now_s(), *STORAGE)
        if fault == "s3_500":
            raise _refusal("InternalError", operation)
        if fault == "s3_slow_down":
            raise _refusal("SlowDown", operation)
        if fault == "s3_refused":
            raise _refusal("AccessDenied", operation)
        return fault


class _Cut:
    def read(self) -> bytes:
        raise ResponseStreamingError(error="cut short")


def _refusal(code: str, operation: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": ""}}, operation)
