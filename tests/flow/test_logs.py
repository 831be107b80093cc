"""What workers write to their logs, and what they must never write, there or in an error or in Redis."""

import base64
import binascii
import json
import os
import signal
from collections.abc import AsyncIterator

import pytest

from shared.adapters.upstash import Upstash
from shared.core import codec
from tests.client import BatchClient, OperationFailed, make_requests
from tests.flow.cloud import FlowCloud, faults, keys_in, wait_for_worker
from tests.flow.expected import assert_all_succeeded

PROMPT = "Zwölf Boxkämpfer jagen Viktor"
WORKERS = ("batch-api-*", "mistral-*", "llama-*")
SECRETS = (
    *("RUNPOD_API_KEY", "RUNPOD_AI_API_KEY", "UPSTASH_REDIS_REST_TOKEN"),
    *("WEBHOOK_TOKEN", "S3_SECRET_ACCESS_KEY", "CALLBACK_SECRET"),
)
# How each kind of key is read whole.
READS = {
    "string": ["GET", "{}"],
    "hash": ["HGETALL", "{}"],
    "list": ["LRANGE", "{}", "0", "-1"],
    "zset": ["ZRANGE", "{}", "0", "-1"],
}


async def run_through_trouble(client: BatchClient) -> tuple[list[str], list[str]]:
    """Batches with errors, refusals, a killed worker, bad input and a delete; the texts of their completions, and the
    bodies of all errors."""
    requests = make_requests(200, f"{PROMPT} {{n}}")
    async with faults(client, double_webhook=1):
        async with faults(client, run_500=0.5, run_429=0.5):
            batch_id = (await client.call("create", stage="email", requests=requests))["id"]
        os.kill(int((await wait_for_worker(client, "mistral"))["pid"]), signal.SIGKILL)
        await client.wait(batch_id)
    lines = await client.lines(batch_id)
    assert_all_succeeded(lines, requests)
    failing = make_requests(2, f"{PROMPT} {{n}} [[error]]")
    await client.wait((await client.call("create", stage="polish", requests=failing))["id"])
    refused = []
    for bad in ({"stage": PROMPT}, {"stage": "email", "priority": PROMPT}, {"stage": "email", PROMPT: 1}):
        with pytest.raises(OperationFailed) as caught:
            await client.call("create", requests=requests[:1], **bad)
        refused.append(json.dumps(caught.value.body))
    await client.call("webhook", body={"input": {"batch": PROMPT}, "output": PROMPT})
    await client.call("delete", id=batch_id)
    return [line["message"]["content"][0]["text"] for line in lines], refused


async def test_logs_hold_no_secret_no_prompt_and_no_completion(cloud: FlowCloud, client: BatchClient) -> None:
    completions, refused = await run_through_trouble(client)
    written = "\n".join(cloud.logs(name) for name in WORKERS)
    # As it stands, and as JSON writes it.
    texts = {PROMPT, json.dumps(PROMPT)[1:-1], "You write short business e-mails."}
    texts |= {" ".join(completion.split()[:6]) for completion in completions}
    assert sum(text in written for text in texts) == 0
    seen = "\n".join([written, *refused])
    assert not [name for name in SECRETS if cloud.worker_env[name] in seen]


async def stored_texts(redis: Upstash) -> AsyncIterator[str]:
    """Everything in Redis as text, payloads unpacked. Inboxes are left out: until a tick takes it, a body there is as
    the platform sent it, and the platform repeats the webhook's URL."""
    for key in await keys_in(redis):
        kind = await redis.execute("TYPE", key)
        if kind == "none" or key.startswith("inbox:"):
            continue
        value = await redis.execute(*[part.replace("{}", key) for part in READS[kind]])
        yield f"{key} {value}"
        if key.startswith("payload:"):
            yield unpacked(value)


def unpacked(value: object) -> str:
    """A payload's JSON; of one that is in S3, its place."""
    try:
        return json.dumps(codec.decode(base64.b64decode(str(value))))
    except (ValueError, binascii.Error):
        return str(value)


async def test_what_is_stored_of_a_batch_holds_no_secret(
    cloud: FlowCloud, client: BatchClient, cloud_redis: Upstash
) -> None:
    requests = make_requests(50, f"{PROMPT} {{n}}")
    await client.wait((await client.call("create", stage="email", requests=requests))["id"])
    texts = [text async for text in stored_texts(cloud_redis)]
    # The scan sees what it should: prompts are in the payloads.
    assert any(json.dumps(PROMPT)[1:-1] in text for text in texts)
    assert not [(name, text[:100]) for name in SECRETS for text in texts if cloud.worker_env[name] in text]
    assert not [text[:100] for text in texts if "_token=" in text]


async def test_log_lines_of_ours_are_json_and_name_their_batch(cloud: FlowCloud, client: BatchClient) -> None:
    batch_id = (await client.call("create", stage="email", requests=make_requests(9)))["id"]
    await client.wait(batch_id)
    entries = []
    for name in WORKERS:
        for line in cloud.logs(name).splitlines():
            if '"logger"' in line:
                entry = json.loads(line)
                assert {"time", "level", "logger", "message"} <= entry.keys()
                entries.append(entry)
    of_batch = [entry for entry in entries if entry.get("batch") == batch_id]
    assert {entry["logger"] for entry in of_batch} >= {"shared.flow.submission", "shared.flow.worker"}
    assert {entry["shard"] for entry in of_batch if "shard" in entry} == {0, 1}
