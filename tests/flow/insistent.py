"""A caller who insists: repeats what was refused for now, and accepts no other refusal."""

from typing import Any

from shared.adapters.upstash import Upstash
from tests.client import BatchClient, OperationFailed
from tests.flow.cloud import FlowCloud, eventually, keys_in
from tests.flow.expected import assert_all_succeeded, assert_follows, assert_status_shape

PATIENCE_S = 90.0


async def call_once(client: BatchClient, operation: str, **fields: Any) -> dict[str, Any] | None:
    """The operation's output, None where it was refused for now."""
    try:
        return await client.call(operation, **fields)
    except OperationFailed as error:
        if (error.status, error.type) != (503, "overloaded_error"):
            raise
        return None


async def insist(client: BatchClient, operation: str, **fields: Any) -> dict[str, Any]:
    answer = await eventually(
        lambda: call_once(client, operation, **fields), f"{operation} is answered", PATIENCE_S
    )
    assert answer is not None
    return answer


async def insist_on_end(client: BatchClient, batch_id: str) -> dict[str, Any]:
    """The last status; all before it are checked too."""
    seen: list[dict[str, Any]] = []

    async def ended() -> bool:
        status = await insist(client, "status", id=batch_id)
        assert_status_shape(status)
        if seen:
            assert_follows(status, seen[-1])
        seen.append(status)
        return bool(status["processing_status"] == "ended")

    await eventually(ended, "the batch ends", PATIENCE_S)
    return seen[-1]


async def insist_on_lines(client: BatchClient, batch_id: str) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = []
    page: dict[str, Any] = {}
    while page.get("page", "0") is not None:
        answer = await insist(client, "results", id=batch_id, **page)
        lines += answer["results"]
        page = {"page": answer["next_page"]}
    return lines


async def create_and_finish(client: BatchClient, key: str, requests: list[dict[str, Any]]) -> str:
    """A batch from its create to all of its lines, each as it must be; its id."""
    created = await insist(client, "create", stage="email", requests=requests, idempotency_key=key)
    batch_id: str = created["id"]
    last = await insist_on_end(client, batch_id)
    assert last["settled"]["succeeded"] == len(requests)
    assert_all_succeeded(await insist_on_lines(client, batch_id), requests)
    again = await insist(client, "create", stage="email", requests=requests, idempotency_key=key)
    assert again == created, "one key, one batch"
    return batch_id


async def nonce_of(redis: Upstash, batch_id: str) -> str:
    """What names the batch's payloads; read past the service."""
    nonce: str = await redis.execute("HGET", f"batch:{batch_id}", "nonce")
    assert nonce
    return nonce


async def delete_whole(
    cloud: FlowCloud, client: BatchClient, redis: Upstash, batch_id: str, nonce: str
) -> None:
    """Nothing of the batch stays but the note that it was deleted, in Redis or in S3."""
    await insist(client, "delete", id=batch_id)
    assert await keys_in(redis, f"*{batch_id}*") == {f"deleted:{batch_id}"}
    assert await keys_in(redis, f"*{nonce}*") == set()
    assert [key for key in cloud.stored_objects() if nonce in key] == []
