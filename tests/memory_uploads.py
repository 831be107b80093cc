"""The uploads port in memory."""

from dataclasses import replace

from shared.ports.state import PartDraft, Reserved, ReserveVerdict, Upload, UploadedPart
from tests.memory_records import MemoryUpload
from tests.memory_state import MemoryState

# What a test can reach.
UPLOAD_MAX_REQUESTS, UPLOAD_MAX_BYTES, UPLOAD_MS = 24, 1000, 3_600_000


class MemoryUploads:
    def __init__(self, state: MemoryState) -> None:
        self._state = state

    async def find(self, key: str) -> Upload | None:
        upload = self._state.uploads.get(key)
        if upload is None:
            return None
        parts = {number: part for number, (part, _) in upload.parts.items()}
        return Upload(upload.nonce, upload.options, parts, upload.made)

    async def reserve(self, key: str, part: PartDraft) -> Reserved:
        upload = self._state.uploads.get(key)
        if upload is None:
            upload = MemoryUpload("", part.options, self._state.clock() + UPLOAD_MS)
        verdict = _verdict(upload, part)
        if verdict == "reserved" and part.number not in upload.parts:
            upload.nonce = upload.nonce or part.nonce
            upload.parts[part.number] = UploadedPart(part.hash, part.plan, stored=False), part.size_bytes
            self._state.uploads[key] = upload
        return Reserved(verdict, upload.nonce, upload.made[0] if upload.made else "")

    async def confirm(self, key: str, part: int, nonce: str) -> Reserved:
        upload = self._state.uploads.get(key)
        if upload is None:
            return Reserved("gone")
        batch_id = upload.made[0] if upload.made else ""
        if upload.nonce != nonce or part not in upload.parts:
            return Reserved("gone", upload.nonce, batch_id)
        known, size_bytes = upload.parts[part]
        if not known.stored and upload.made:
            return Reserved("closed", upload.nonce, batch_id)
        upload.parts[part] = replace(known, stored=True), size_bytes
        return Reserved("stored", upload.nonce, batch_id)


def _verdict(upload: MemoryUpload, part: PartDraft) -> ReserveVerdict:
    if upload.options != part.options:
        return "other_options"
    if part.number in upload.parts:
        known, _ = upload.parts[part.number]
        if known.hash == part.hash and known.stored:
            return "stored"
        return "reserved" if (known.hash, known.plan) == (part.hash, part.plan) else "other_body"
    if upload.made:
        return "closed"
    return _fits(upload, part)


def _fits(upload: MemoryUpload, part: PartDraft) -> ReserveVerdict:
    requests = sum(other.plan.requests for other, _ in upload.parts.values())
    size_bytes = sum(other_bytes for _, other_bytes in upload.parts.values())
    if requests + part.plan.requests > UPLOAD_MAX_REQUESTS:
        return "too_many"
    return "too_large" if size_bytes + part.size_bytes > UPLOAD_MAX_BYTES else "reserved"
