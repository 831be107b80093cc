"""Facts about Upstash's REST protocol and access rights, and about the S3 storage.

No probe does harm where its fact is wrong: what the webhook token must not do is tried on keys of our own.
"""

import asyncio
import base64
from collections.abc import Sequence
from typing import Any

import httpx

from tests.smoke.endpoint import Answer, NoAnswer
from tests.smoke.facts import REDIS, STORAGE, WEBHOOK, Fact, Finding, held, learned
from tests.smoke.platform import OWN_KEY_S, Platform

OVER_REQUEST_LIMIT_BYTES = 10 * 1024 * 1024 + 64 * 1024
FLAG_SCRIPT = "#!lua flags=allow-key-locking\nreturn redis.call('TIME')[1]"


async def a_body_is_the_last_argument(platform: Platform) -> Finding:
    key, value = platform.own_key(), '{"a": [1, "ä\\n"]}'
    stored = await platform.redis.post(f"/set/{key}?EX={OWN_KEY_S}", raw=value.encode())
    kept = await platform.redis.command("GET", key)
    left_s = await platform.redis.command("TTL", key)
    fine = stored.status_code == 200 and kept == value and 0 < left_s <= OWN_KEY_S
    return held(fine, f"{stored}, {'byte for byte' if kept == value else 'changed'}, TTL {left_s}")


async def a_token_in_the_query(platform: Platform) -> Finding:
    path = platform.webhook.removeprefix(platform.redis.url)
    before = await platform.redis.command("LLEN", platform.inbox)
    pushed = await platform.redis.post(path, raw=b'["one", "element"]', token="")
    empty = await platform.redis.post(path, raw=b"", token="")
    fine = pushed.status_code == 200 and pushed.fields.get("result", 0) > before and empty.status_code == 400
    return held(fine, f"{pushed}; without a body {empty}")


async def the_token_does_nothing_else(platform: Platform) -> Finding:
    key = platform.own_key()
    tries: Sequence[Sequence[str]] = (
        ("GET", key),
        ("SET", key, "x", "EX", str(OWN_KEY_S)),
        ("RPUSH", key, "x"),
        ("RPUSH", platform.inbox, "x"),
        ("LRANGE", platform.inbox, "0", "0"),
        ("LPUSH", platform.inbox, "x"),
        ("EXPIRE", platform.inbox, str(OWN_KEY_S)),
        ("EVAL", "return 1", "0"),
        ("ACL", "WHOAMI"),
        ("DBSIZE",),
    )
    passed, unread = [], []
    for command in tries:
        answer = await platform.redis.post("/", command, token=platform.webhook_token)
        if answer.status_code == 200:
            passed.append(command[0])
        elif answer.status_code != 400 or "NOPERM" not in answer.text:
            unread.append(f"{command[0]}: {answer}")
    if passed:
        return held(False, f"it was let do {', '.join(passed)}")
    if unread:
        return learned(f"refused, but not by 400 NOPERM: {'; '.join(unread)}")
    return held(True, f"{len(tries)} others refused: 400 NOPERM")


async def errors_have_their_shapes(platform: Platform) -> Finding:
    redis = platform.redis
    wrong = await redis.post("/", ["NOSUCHCOMMAND"])
    token = await redis.post("/", ["PING"], token="not-a-token")
    pipeline = await redis.post("/pipeline", [["PING"], ["NOSUCHCOMMAND"]])
    discarded = await redis.post("/multi-exec", [["PING"], ["NOSUCHCOMMAND"]])
    seen = {
        "a bad command": (wrong.status_code, sorted(wrong.fields)),
        "a bad token": (token.status_code, sorted(token.fields)),
        "a pipeline": (pipeline.status_code, _keys_of_each(pipeline)),
        "a discarded transaction": (discarded.status_code, sorted(discarded.fields)),
    }
    expected = {
        "a bad command": (400, ["error"]),
        "a bad token": (401, ["error"]),
        "a pipeline": (200, [["result"], ["error"]]),
        "a discarded transaction": (400, ["error"]),
    }
    different = {name: answer for name, answer in seen.items() if answer != expected[name]}
    return held(not different, different or "400, 401, a list of both, one object")


async def base64_leaves_ok_alone(platform: Platform) -> Finding:
    key, header = platform.own_key(), {"Upstash-Encoding": "base64"}
    stored = await platform.redis.post("/", ["SET", key, "text", "EX", str(OWN_KEY_S)], headers=header)
    read = await platform.redis.post("/", ["GET", key], headers=header)
    fine = (
        stored.fields.get("result") == "OK"
        and read.fields.get("result") == base64.b64encode(b"text").decode()
    )
    return held(fine, f"{stored}; {read}")


async def scripts_may_lock_their_keys(platform: Platform) -> Finding:
    answer = await platform.redis.post("/", ["EVAL", FLAG_SCRIPT, "1", platform.own_key()])
    return held(answer.status_code == 200 and str(answer.fields.get("result", "")).isdecimal(), answer)


async def an_unknown_script_is_noscript(platform: Platform) -> Finding:
    answer = await platform.redis.post("/", ["EVALSHA", "0" * 40, "0"])
    text = str(answer.fields.get("error"))
    return held(answer.status_code == 400 and text.startswith("NOSCRIPT"), answer)


async def a_request_has_its_limit(platform: Platform) -> Finding:
    path = f"/set/{platform.own_key()}?EX={OWN_KEY_S}"
    try:
        answer = await platform.redis.post(path, raw=b"x" * OVER_REQUEST_LIMIT_BYTES)
    except NoAnswer as reason:
        return learned(f"the connection was closed: {reason}")
    return held(400 <= answer.status_code < 500, answer)


async def objects_come_and_go(platform: Platform) -> Finding:
    storage, key = platform.storage(), f"verify/{platform.run_id}"
    await storage.put(key, b"data")
    try:
        kept = await storage.get(key)
    finally:
        await storage.delete([key])
    gone = await storage.get(key)
    # A deletion that was cut short is repeated.
    await storage.delete([key])
    return held(kept == b"data" and gone is None, f"read back {kept!r}, after the delete {gone!r}")


async def presigned_addresses_may_work(platform: Platform) -> Finding:
    storage, key = platform.storage(), f"verify/{platform.run_id}-signed"
    await storage.put(key, b"data")
    try:
        url = await asyncio.to_thread(_presign, storage._client, platform, key)
        answer = await platform.client.get(url)
    except httpx.HTTPError as error:
        return learned(f"no: {type(error).__name__}")
    finally:
        await storage.delete([key])
    return learned("yes" if answer.content == b"data" else f"no: {answer.status_code}")


def _presign(client: Any, platform: Platform, key: str) -> str:
    place = {"Bucket": platform.settings.variables["S3_BUCKET"], "Key": key}
    url: str = client.generate_presigned_url("get_object", Params=place, ExpiresIn=OWN_KEY_S)
    return url


def _keys_of_each(answer: Answer) -> list[list[str]]:
    parts = answer.body if isinstance(answer.body, list) else []
    return [sorted(part) for part in parts if isinstance(part, dict)]


TOKEN = "README.md#deploy"
STATE = "docs/design.md#state"
PAYLOADS = "docs/design.md#payloads"

FACTS = (
    Fact(
        "Redis: a path with a body",
        "the body is the last argument",
        TOKEN,
        REDIS,
        a_body_is_the_last_argument,
    ),
    Fact("Redis: _token in the query", "a token like any other", TOKEN, WEBHOOK, a_token_in_the_query),
    Fact("Redis: the webhook token", "may push to inboxes only", TOKEN, WEBHOOK, the_token_does_nothing_else),
    Fact("Redis: errors", "400, 401, a list, one object", STATE, REDIS, errors_have_their_shapes),
    Fact("Redis: base64", "every string but OK", STATE, REDIS, base64_leaves_ok_alone),
    Fact("Redis: key locking", "scripts may carry the flag", STATE, REDIS, scripts_may_lock_their_keys),
    Fact("Redis: an unknown script", "400 NOSCRIPT", STATE, REDIS, an_unknown_script_is_noscript),
    Fact("Redis: over 10 MB", "refused", STATE, REDIS, a_request_has_its_limit),
    Fact("S3: objects", "put, get, delete; absent ones are no error", PAYLOADS, STORAGE, objects_come_and_go),
    Fact("S3: presigned addresses", "not used", PAYLOADS, STORAGE, presigned_addresses_may_work),
)
