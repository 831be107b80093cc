"""`upload`: a part of a batch that is too large for one call; and `create` from what was uploaded.

A part is validated, routed and cut when it comes, in any order and beside others, and its shards are stored under their
final keys. So the create only looks whether all parts are there and no custom_id stands in two of them, and commits.
First the part is reserved by the hash of its requests, so that another body can't overwrite anything; then its payloads
are stored, and last it is confirmed. A call that is repeated at any point of this does what is left to do.
"""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b, sha256
from typing import Any

from shared.core.requests import CreateFromUpload, UploadInput, parse
from shared.core.sharding import Cut
from shared.errors import CallerError, Conflict, InvalidRequest, StorageUnavailable, TooLarge
from shared.flow.submission import (
    Limits,
    Submission,
    Submitter,
    cut_stored,
    hash_of,
    part_payloads,
    same_batch,
)
from shared.ports.payloads import PAYLOAD_SLACK_MS, Payloads, ids_key
from shared.ports.state import Batches, Committed, PartDraft, Reserved, Upload, UploadedPart, Uploads

log = logging.getLogger(__name__)

DIGEST_BYTES = 16
DIGESTS_PER_READ = 8


@dataclass(frozen=True)
class _Prepared:
    """A part that may be stored."""

    key: str
    number: int
    hash: str
    options: str
    expires_in_ms: int
    cut: Cut
    stored: Sequence[str]
    digests: bytes


class Uploader:
    def __init__(
        self,
        uploads: Uploads,
        batches: Batches,
        payloads: Payloads,
        submitter: Submitter,
        limits: Limits,
    ) -> None:
        self._uploads = uploads
        self._batches = batches
        self._payloads = payloads
        self._submitter = submitter
        self._limits = limits

    async def upload(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        """`{"upload", "part", "requests"}`. Raises InvalidRequest, TooLarge for the part that exceeds what a batch may
        hold, or Conflict where the part or its options were others before."""
        part = await self._submitter.beside(lambda: self._prepare(payload))
        reserved = await self._uploads.reserve(part.key, _draft(part))
        self._check(reserved, part)
        if reserved.verdict == "reserved":
            await self._store(part, reserved.nonce)
        return {"upload": part.key, "part": part.number, "requests": part.cut.plan.requests}

    async def submit(self, payload: Mapping[str, Any]) -> Submission:
        """The batch made of an upload, or made of it before. Raises InvalidRequest for a part that is missing and for a
        custom_id that stands twice, or Conflict."""
        wanted = parse(CreateFromUpload, dict(payload))
        self._submitter.check_callback(wanted.callback_url)
        upload = await self._uploads.find(wanted.upload) or Upload("", "", {})
        parts = _complete(upload.parts, wanted.parts)
        stage, expires_in_s = _options(upload.options, wanted)
        options = [stage, expires_in_s, wanted.priority, wanted.callback_url]
        body_hash = hash_of([wanted.upload, [part.hash for part in parts], *options])
        if upload.made:
            return _made(upload.made, body_hash)
        if wanted.idempotency_key:
            known = await self._batches.find_key(wanted.idempotency_key, body_hash)
            if known is not None:
                return Submission(same_batch(known))
        ids = [ids_key(upload.nonce, number) for number in range(len(parts))]
        try:
            await self._check_unique(ids)
        except StorageUnavailable:
            # Another create of this upload drops the digests when it has made the batch.
            now = await self._uploads.find(wanted.upload)
            if now is None or not now.made:
                raise
            return _made(now.made, body_hash)
        draft = self._submitter.draft(stage, wanted.priority, self._expires_in_ms(expires_in_s))
        batch = replace(
            draft,
            nonce=upload.nonce,
            parts=[part.plan for part in parts],
            idempotency_key=wanted.idempotency_key,
            body_hash=body_hash,
            upload=wanted.upload,
            callback_url=wanted.callback_url,
        )
        committed = await self._submitter.commit(batch)
        if committed.id == batch.id:
            await self._submitter.discard(ids)
        return Submission(same_batch(committed, "upload"), list(batch.requests_by_model), committed.head)

    def _prepare(self, payload: Mapping[str, Any]) -> _Prepared:
        wanted = self._submitter.check(UploadInput, payload)
        cards, stored = self._submitter.accept(wanted, payload["requests"])
        return _Prepared(
            key=wanted.upload,
            number=wanted.part,
            hash=_hash(payload["requests"]),
            options=json.dumps([wanted.stage or "", wanted.expires_in_s]),
            expires_in_ms=self._expires_in_ms(wanted.expires_in_s),
            cut=cut_stored(wanted.part, cards, stored),
            stored=stored,
            digests=b"".join(_digest(request.custom_id) for request in wanted.requests),
        )

    async def _store(self, part: _Prepared, nonce: str) -> None:
        items = await self._submitter.beside(lambda: part_payloads(nonce, part.number, part.cut, part.stored))
        items[ids_key(nonce, part.number)] = part.digests
        # A batch may be made of it until the upload ends, and lives its whole life from then on.
        limits = self._limits
        ttl_ms = limits.upload_ms + part.expires_in_ms + limits.retain_ms + PAYLOAD_SLACK_MS
        await self._payloads.put(items, ttl_ms)
        confirmed = await self._uploads.confirm(part.key, part.number, nonce)
        if confirmed.verdict != "stored":
            await self._submitter.discard(list(items))
        self._check(confirmed, part)
        log.info("part %d of an upload stored with %d requests", part.number, part.cut.plan.requests)

    def _check(self, reserved: Reserved, part: _Prepared) -> None:
        """Raises what stands against the part."""
        faults: dict[str, CallerError] = {
            "other_body": Conflict(
                f"part: {part.number} was uploaded before with another body", param="part"
            ),
            "other_options": Conflict(
                "upload: its other parts have another stage or expires_in_s", param="upload"
            ),
            "closed": Conflict(f"upload: {reserved.batch} was made of it without this part", param="upload"),
            "gone": Conflict("upload: it ended before this part came; send all parts again", param="upload"),
            "too_many": TooLarge(
                f"requests: at most {self._limits.max_requests} in a batch", param="requests"
            ),
            "too_large": TooLarge(
                f"requests: at most {self._limits.max_batch_bytes} bytes in a batch", param="requests"
            ),
        }
        if reserved.verdict in faults:
            raise faults[reserved.verdict]

    def _expires_in_ms(self, expires_in_s: int | None) -> int:
        return 1000 * expires_in_s if expires_in_s else self._limits.expires_in_ms

    async def _check_unique(self, keys: Sequence[str]) -> None:
        """Raises InvalidRequest for a custom_id that stands in two parts."""
        if len(keys) == 1:
            return
        digests: list[bytes] = []
        for start in range(0, len(keys), DIGESTS_PER_READ):
            for data in await self._payloads.get(keys[start : start + DIGESTS_PER_READ]):
                if data is None:
                    raise StorageUnavailable("a part of an upload is not in storage")
                digests.append(data)
        twice = await self._submitter.beside(lambda: first_twice(digests))
        if twice is not None:
            first, second = twice
            path = f"requests[{second}].custom_id"
            raise InvalidRequest(f"{path}: the same custom_id as requests[{first}]", param=path)


def _made(made: tuple[str, str], body_hash: str) -> Submission:
    """The batch that was made of an upload. Raises Conflict where it was made by another create."""
    made_id, made_by = made
    committed = Committed("existing" if made_by == body_hash else "mismatch", made_id)
    return Submission(same_batch(committed, "upload"))


def first_twice(parts: Sequence[bytes]) -> tuple[int, int] | None:
    """Where the first digest that stands twice does, counted over all parts; None where none does."""
    seen: set[bytes] = set()
    for index, digest in enumerate(_each(parts)):
        seen.add(digest)
        if len(seen) == index:
            return next(at for at, earlier in enumerate(_each(parts)) if earlier == digest), index
    return None


def _each(parts: Iterable[bytes]) -> Iterable[bytes]:
    for part in parts:
        for start in range(0, len(part), DIGEST_BYTES):
            yield part[start : start + DIGEST_BYTES]


def _digest(custom_id: str) -> bytes:
    return blake2b(custom_id.encode(), digest_size=DIGEST_BYTES).digest()


def _hash(requests: Iterable[Mapping[str, Any]]) -> str:
    """A digest of requests, which never has the JSON of more than one of them."""
    digest = sha256()
    for request in requests:
        digest.update(json.dumps(request, sort_keys=True).encode())
    return digest.hexdigest()


def _draft(part: _Prepared) -> PartDraft:
    size_bytes, nonce = sum(map(len, part.stored)), secrets.token_hex(12)
    return PartDraft(part.number, part.hash, part.cut.plan, size_bytes, part.options, nonce)


def _complete(parts: Mapping[int, UploadedPart], count: int) -> list[UploadedPart]:
    """The parts of an upload in their order. Raises InvalidRequest for one that is not there."""
    for number in range(count):
        if number not in parts or not parts[number].stored:
            raise InvalidRequest(f"parts[{number}]: not uploaded", param=f"parts[{number}]")
    if max(parts) >= count:
        raise InvalidRequest(f"parts: {count} given, but part {max(parts)} was uploaded too", param="parts")
    return [parts[number] for number in range(count)]


def _options(options: str, wanted: CreateFromUpload) -> tuple[str, int | None]:
    """The stage and the expiry of an upload. Raises Conflict where the create has others."""
    stage, expires_in_s = json.loads(options)
    for name, given, kept in (
        ("stage", wanted.stage, stage or None),
        ("expires_in_s", wanted.expires_in_s, expires_in_s),
    ):
        if given is not None and given != kept:
            raise Conflict(f"{name}: another one than of the uploaded parts", param=name)
    return stage, expires_in_s
