"""The local stand-in for Upstash speaks its REST protocol, over HTTP and through the official client."""

import asyncio
import hashlib
import json
import os
from base64 import b64encode
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
from upstash_redis.asyncio import Redis
from upstash_redis.errors import UpstashError

from tests.local_cloud.upstash.engine import find_engine
from tests.local_cloud.upstash.running import Upstash, running_upstash

pytestmark = pytest.mark.asyncio(loop_scope="module")

MAX_REQUEST_BYTES = 10 * 1024 * 1024


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def upstash() -> AsyncIterator[Upstash]:
    async with running_upstash(find_engine(os.environ)) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def http(upstash: Upstash) -> AsyncIterator[httpx.AsyncClient]:
    """Raw HTTP with the admin token, on an empty database."""
    headers = {"Authorization": f"Bearer {upstash.token}"}
    async with httpx.AsyncClient(base_url=upstash.url, headers=headers, timeout=10) as client:
        await client.post("/", json=["FLUSHALL"])
        await client.post("/", json=["SCRIPT", "FLUSH"])
        await client.post("/", json=["ACL", "DELUSER", "inbox", "reader"])
        await client.post("/_control/stats/reset")
        yield client


@pytest_asyncio.fixture(loop_scope="module")
async def redis(upstash: Upstash, http: httpx.AsyncClient) -> AsyncIterator[Redis]:
    """The official client with the admin token, on an empty database."""
    async with Redis(upstash.url, upstash.token, rest_retries=0, allow_telemetry=False) as client:
        yield client


async def run(http: httpx.AsyncClient, *command: str | int) -> Any:
    answer = await http.post("/", json=list(command))
    assert answer.status_code == 200, answer.text
    return answer.json()["result"]


async def make_inbox_token(http: httpx.AsyncClient) -> str:
    token: str = await run(http, "ACL", "GENTOKEN", "inbox")
    assert (
        await run(http, "ACL", "SETUSER", "inbox", "reset", "on", f">{token}", "~inbox:*", "+rpush") == "OK"
    )
    return token


async def push_webhook(url: str, key: str, body: bytes, token: str) -> httpx.Response:
    """What RunPod sends: a body, no header, everything else in the URL."""
    async with httpx.AsyncClient(timeout=10) as anonymous:
        return await anonymous.post(f"{url}/rpush/{key}?_token={token}", content=body)


class TestCommands:
    async def test_a_path_is_a_command(self, http: httpx.AsyncClient) -> None:
        assert (await http.get("/set/foo/bar")).json() == {"result": "OK"}
        assert (await http.post("/get/foo")).json() == {"result": "bar"}

    async def test_path_segments_are_percent_decoded_one_by_one(self, http: httpx.AsyncClient) -> None:
        await http.get("/set/a%2Fb%20%C3%A9/1+1")
        assert await run(http, "GET", "a/b é") == "1+1"

    async def test_a_body_is_the_last_argument_and_the_query_follows_it(
        self, http: httpx.AsyncClient
    ) -> None:
        assert (await http.post("/set/foo?EX=100&NX", content=b"bar")).json() == {"result": "OK"}
        assert await run(http, "GET", "foo") == "bar"
        assert await run(http, "TTL", "foo") == 100
        assert (await http.post("/set/foo?NX", content=b"other")).json() == {"result": None}

    async def test_the_token_in_the_query_is_no_argument(
        self, upstash: Upstash, http: httpx.AsyncClient
    ) -> None:
        async with httpx.AsyncClient() as anonymous:
            answer = await anonymous.post(f"{upstash.url}/rpush/list?_token={upstash.token}", content=b"x")
        assert answer.json() == {"result": 1}
        assert await run(http, "LRANGE", "list", 0, -1) == ["x"]

    async def test_a_json_array_is_a_command_and_its_numbers_stay_as_written(
        self, http: httpx.AsyncClient
    ) -> None:
        await http.post("/", content=b'["RPUSH", "list", 1.50, 12345678901234567890, -3, true, "\\u00e9"]')
        assert await run(http, "LRANGE", "list", 0, -1) == ["1.50", "12345678901234567890", "-3", "true", "é"]

    async def test_nil_is_null_integers_are_numbers_and_arrays_nest(self, http: httpx.AsyncClient) -> None:
        script = "return {1, false, 'x', {2, {}}, redis.status_reply('FINE')}"
        assert await run(http, "EVAL", script, 0) == [1, None, "x", [2, []], "FINE"]
        assert await run(http, "GET", "absent") is None
        assert await run(http, "INCR", "n") == 1

    async def test_bytes_that_are_no_utf8_are_replaced_in_plain_answers(
        self, http: httpx.AsyncClient
    ) -> None:
        await http.post("/set/foo", content=b"a\xffb")
        assert await run(http, "GET", "foo") == "a\ufffdb"

    async def test_base64_encodes_every_string_but_ok(self, http: httpx.AsyncClient) -> None:
        header = {"Upstash-Encoding": "base64"}
        assert (await http.post("/set/foo", content=b"a\xffb", headers=header)).json() == {"result": "OK"}
        batch = [["GET", "foo"], ["PING"], ["RPUSH", "l", "x"], ["LRANGE", "l", 0, -1], ["GET", "l"]]
        answers = (await http.post("/pipeline", json=batch, headers=header)).json()
        assert answers[0] == {"result": b64encode(b"a\xffb").decode()}
        assert answers[1:4] == [{"result": "UE9ORw=="}, {"result": 1}, {"result": ["eA=="]}]
        assert answers[4]["error"].startswith("WRONGTYPE ")

    async def test_a_reply_that_arrives_in_many_pieces_is_whole(self, http: httpx.AsyncClient) -> None:
        script = "for i = 1, 20000 do redis.call('RPUSH', KEYS[1], i .. string.rep('x', 40)) end"
        await run(http, "EVAL", script, 1, "long")
        items = await run(http, "LRANGE", "long", 0, -1)
        assert items == [f"{number}{'x' * 40}" for number in range(1, 20_001)]

    async def test_concurrent_requests_each_get_their_own_answer(self, http: httpx.AsyncClient) -> None:
        answers = await asyncio.gather(*(run(http, "ECHO", f"{number}") for number in range(100)))
        assert answers == [f"{number}" for number in range(100)]


class TestErrors:
    @pytest.mark.parametrize("token", ["wrong", "LOCALaW5ib3ggZ3Vlc3NlZA", "LOCAL%%%", "é"])
    async def test_a_bad_token_is_401(self, upstash: Upstash, token: str) -> None:
        async with httpx.AsyncClient(base_url=upstash.url, params={"_token": token}) as stranger:
            answer = await stranger.get("/ping")
        assert answer.status_code == 401
        assert answer.json() == {"error": "WRONGPASS invalid or missing auth token"}

    async def test_no_token_is_401(self, upstash: Upstash) -> None:
        async with httpx.AsyncClient(base_url=upstash.url) as stranger:
            assert (await stranger.get("/ping")).status_code == 401

    async def test_other_methods_are_405(self, http: httpx.AsyncClient) -> None:
        assert (await http.delete("/get/foo")).status_code == 405
        assert (await http.put("/set/foo", content=b"bar")).status_code == 200

    @pytest.mark.parametrize(
        ("command", "prefix"),
        [
            (["GET"], "ERR wrong number of arguments for 'get' command"),
            (["INCR", "text"], "ERR value is not an integer"),
            (["LPUSH", "text", "x"], "WRONGTYPE Operation against a key"),
            (["EVALSHA", "0" * 40, 0], "NOSCRIPT No matching script"),
            (["NOSUCH"], "ERR unknown command"),
            (["EVAL", "return redis.error_reply('MINE went wrong')", 0], "MINE went wrong"),
            (["EVAL", "return redis.call('GET')", 0], "ERR "),
        ],
    )
    async def test_a_failed_command_is_400_with_its_prefix(
        self, http: httpx.AsyncClient, command: list[str | int], prefix: str
    ) -> None:
        await run(http, "SET", "text", "abc")
        answer = await http.post("/", json=command)
        assert answer.status_code == 400
        assert list(answer.json()) == ["error"]
        assert answer.json()["error"].startswith(prefix)

    @pytest.mark.parametrize(
        "command",
        [
            ["BLPOP", "list", "1"],
            ["blmove", "a", "b", "LEFT", "RIGHT", "0"],
            ["WATCH", "foo"],
            ["MULTI"],
            ["SUBSCRIBE", "channel"],
            ["XREAD", "BLOCK", "0", "STREAMS", "s", "$"],
            ["XREADGROUP", "GROUP", "g", "c", "block", "0", "STREAMS", "s", ">"],
            ["SELECT", "0"],
            ["SHUTDOWN"],
        ],
    )
    async def test_commands_that_block_or_bind_a_connection_are_refused(
        self, http: httpx.AsyncClient, command: list[str]
    ) -> None:
        answer = await http.post("/", json=command)
        assert answer.status_code == 400
        assert answer.json()["error"].startswith(f"ERR Command is not available: '{command[0].upper()}'")

    async def test_a_stream_named_block_can_be_read(self, http: httpx.AsyncClient) -> None:
        await run(http, "XADD", "block", "1-1", "field", "value")
        assert await run(http, "XREAD", "STREAMS", "block", "0") == [["block", [["1-1", ["field", "value"]]]]]

    @pytest.mark.parametrize("path", ["/", "/pipeline", "/multi-exec"])
    @pytest.mark.parametrize(
        "body", [b"", b"[", b'{"a": 1}', b"[]", b'[["SET", {}]]', b'[["SET", null]]', b'[["\\ud800"]]']
    )
    async def test_a_body_that_is_no_command_is_400(
        self, http: httpx.AsyncClient, path: str, body: bytes
    ) -> None:
        answer = await http.post(path, content=body)
        assert answer.status_code == 400
        assert answer.json()["error"].startswith("ERR ")


class TestSizes:
    async def test_a_request_of_exactly_10_mb_passes_and_one_byte_more_is_refused(
        self, http: httpx.AsyncClient
    ) -> None:
        assert (await http.post("/set/big", content=b"x" * MAX_REQUEST_BYTES)).status_code == 200
        answer = await http.post("/set/big", content=b"x" * (MAX_REQUEST_BYTES + 1))
        assert answer.status_code == 400
        expected = "ERR max request size exceeded. Limit: 10485760 bytes, Actual: 10485761 bytes."
        assert answer.json()["error"].startswith(expected)
        assert await run(http, "STRLEN", "big") == MAX_REQUEST_BYTES

    async def test_a_body_of_unannounced_size_is_bounded_too(self, http: httpx.AsyncClient) -> None:
        async def chunks() -> AsyncIterator[bytes]:
            for _ in range(11):
                yield b"x" * (1024 * 1024)

        answer = await http.post("/set/big", content=chunks())
        assert answer.status_code == 400
        assert answer.json()["error"].startswith("ERR max request size exceeded.")

    async def test_an_answer_over_10_mb_is_refused(self, http: httpx.AsyncClient) -> None:
        await http.post("/rpush/list", content=b"x" * (6 * 1024 * 1024))
        await http.post("/rpush/list", content=b"y" * (6 * 1024 * 1024))
        answer = await http.post("/", json=["LRANGE", "list", 0, -1])
        assert answer.status_code == 400
        assert answer.json()["error"].startswith("ERR max request size exceeded.")
        assert len(await run(http, "LINDEX", "list", 1)) == 6 * 1024 * 1024


class TestPipelines:
    async def test_a_failed_command_leaves_the_others_alone(self, http: httpx.AsyncClient) -> None:
        batch = [["SET", "foo", "bar"], ["INCR", "foo"], ["BLPOP", "l", 1], [], ["GET", "foo"]]
        answer = await http.post("/pipeline", json=batch)
        assert answer.status_code == 200
        answers = answer.json()
        assert answers[0] == {"result": "OK"}
        assert answers[1]["error"].startswith("ERR value is not an integer")
        assert answers[2]["error"].startswith("ERR Command is not available: 'BLPOP'")
        assert answers[3] == {"error": "ERR empty command"}
        assert answers[4] == {"result": "bar"}

    async def test_a_transaction_answers_like_a_pipeline(self, http: httpx.AsyncClient) -> None:
        answer = await http.post("/multi-exec", json=[["SET", "k", "v"], ["INCR", "k"], ["GET", "none"]])
        assert answer.status_code == 200
        assert answer.json()[0] == {"result": "OK"}
        assert answer.json()[1]["error"].startswith("ERR value is not an integer")
        assert answer.json()[2] == {"result": None}

    @pytest.mark.parametrize("bad", [["GET"], ["BLPOP", "list", 1], ["NOSUCH"]])
    async def test_a_discarded_transaction_is_one_object_and_runs_nothing(
        self, http: httpx.AsyncClient, bad: list[str | int]
    ) -> None:
        answer = await http.post("/multi-exec", json=[["SET", "k", "v"], bad])
        assert answer.status_code == 400
        assert list(answer.json()) == ["error"]
        assert await run(http, "GET", "k") is None

    async def test_concurrent_transactions_do_not_mix(self, http: httpx.AsyncClient) -> None:
        async def rename(number: int) -> Any:
            batch = [["SET", "k", number], ["GET", "k"], ["DEL", "k"]]
            return (await http.post("/multi-exec", json=batch)).json()[1]["result"]

        assert await asyncio.gather(*map(rename, range(50))) == [f"{number}" for number in range(50)]


class TestUsers:
    async def test_a_webhook_arrives_byte_for_byte(self, upstash: Upstash, http: httpx.AsyncClient) -> None:
        token = await make_inbox_token(http)
        body = b'{ "id":"a-1", "note":"\xc3\xa9 & + % ?=/", "output":{"n":1.0}}\r\n'
        answer = await push_webhook(upstash.url, "inbox:3", body, token)
        assert (answer.status_code, answer.json()) == (200, {"result": 1})
        [stored] = await run(http, "LRANGE", "inbox:3", 0, -1)
        assert stored.encode() == body

    async def test_a_json_array_stays_one_element(self, upstash: Upstash, http: httpx.AsyncClient) -> None:
        token = await make_inbox_token(http)
        await push_webhook(upstash.url, "inbox:0", b'["DEL", "inbox:0"]', token)
        assert await run(http, "LRANGE", "inbox:0", 0, -1) == ['["DEL", "inbox:0"]']

    async def test_an_empty_webhook_is_400(self, upstash: Upstash, http: httpx.AsyncClient) -> None:
        answer = await push_webhook(upstash.url, "inbox:0", b"", await make_inbox_token(http))
        assert answer.status_code == 400
        assert answer.json()["error"].startswith("ERR wrong number of arguments for 'rpush' command")

    async def test_the_inbox_token_can_push_there_and_nothing_else(
        self, upstash: Upstash, http: httpx.AsyncClient
    ) -> None:
        params = {"_token": await make_inbox_token(http)}
        async with httpx.AsyncClient(base_url=upstash.url, params=params) as pusher:
            denied = [
                await pusher.post("/rpush/other", content=b"x"),
                await pusher.get("/lrange/inbox:0/0/-1"),
                await pusher.get("/get/inbox:0"),
                await pusher.get("/acl/gentoken/inbox"),
                await pusher.get("/acl/resttoken/inbox/guess"),
                await pusher.post("/multi-exec", json=[["RPUSH", "inbox:0", "x"]]),
            ]
            assert [answer.status_code for answer in denied] == [400] * 6
            assert {answer.json()["error"].split()[0] for answer in denied} == {"NOPERM"}
            mixed = (await pusher.post("/pipeline", json=[["GET", "a"], ["RPUSH", "inbox:0", "x"]])).json()
            assert mixed[0]["error"].startswith("NOPERM ")
            assert mixed[1] == {"result": 1}
            assert (await pusher.get("/_control/stats")).status_code == 401
        assert await run(http, "LRANGE", "inbox:0", 0, -1) == ["x"]

    async def test_resttoken_gives_the_token_for_the_right_password_only(
        self, upstash: Upstash, http: httpx.AsyncClient
    ) -> None:
        token = await run(http, "ACL", "GENTOKEN", "reader", "a-strong-password-0123")
        await run(http, "ACL", "SETUSER", "reader", "on", f">{token}", "~*", "+get")
        assert await run(http, "ACL", "RESTTOKEN", "reader", "a-strong-password-0123") == token
        assert await run(http, "ACL", "RESTTOKEN", "reader", token) == token
        for user, password in (("reader", "wrong"), ("nobody", "a-strong-password-0123")):
            answer = await http.post("/", json=["ACL", "RESTTOKEN", user, password])
            assert answer.json() == {"error": f'ERR Wrong password or user "{user}" does not exist'}
        async with Redis(upstash.url, token, rest_retries=0, allow_telemetry=False) as reader:
            assert await reader.get("foo") is None
            with pytest.raises(UpstashError, match="NOPERM"):
                await reader.set("foo", "bar")

    async def test_a_password_that_gentoken_did_not_make_is_refused(self, http: httpx.AsyncClient) -> None:
        answer = await http.post("/", json=["ACL", "SETUSER", "inbox", "on", ">plain"])
        assert answer.status_code == 400

    async def test_a_rotated_token_stops_at_once_and_the_new_one_works(
        self, upstash: Upstash, http: httpx.AsyncClient
    ) -> None:
        old = await make_inbox_token(http)
        assert (await push_webhook(upstash.url, "inbox:0", b"1", old)).status_code == 200
        new = await make_inbox_token(http)
        assert (await push_webhook(upstash.url, "inbox:0", b"2", old)).status_code == 401
        assert (await push_webhook(upstash.url, "inbox:0", b"3", new)).status_code == 200
        await run(http, "ACL", "DELUSER", "inbox")
        assert (await push_webhook(upstash.url, "inbox:0", b"4", new)).status_code == 401


class TestScripts:
    SOURCE = "#!lua flags=allow-key-locking\n-- name: bump\nreturn redis.call('INCRBY', KEYS[1], ARGV[1])\n"
    SHA = hashlib.sha1(SOURCE.encode(), usedforsecurity=False).hexdigest()

    async def test_a_script_with_the_key_locking_flag_runs_by_the_sha_its_author_computes(
        self, redis: Redis
    ) -> None:
        with pytest.raises(UpstashError, match="NOSCRIPT"):
            await redis.evalsha(self.SHA, ["n"], ["2"])
        assert await redis.script_load(self.SOURCE) == self.SHA
        assert await redis.script_exists(self.SHA, "f" * 40) == [True, False]
        assert await redis.evalsha(self.SHA.upper(), ["n"], ["2"]) == 2
        assert await redis.eval(self.SOURCE, ["n"], ["3"]) == 5
        await redis.script_flush()
        with pytest.raises(UpstashError, match="NOSCRIPT"):
            await redis.evalsha(self.SHA, ["n"], ["2"])
        await redis.eval(self.SOURCE, ["n"], ["1"])
        assert await redis.evalsha(self.SHA, ["n"], ["1"]) == 7

    async def test_other_flags_stay_in_force(self, http: httpx.AsyncClient) -> None:
        source = "#!lua flags=no-writes,allow-key-locking\nreturn redis.call('SET', KEYS[1], 'x')"
        answer = await http.post("/", json=["EVAL", source, 1, "foo"])
        assert answer.status_code == 400
        assert "Write commands are not allowed" in answer.json()["error"]

    async def test_commands_and_named_scripts_are_counted_until_the_reset(
        self, http: httpx.AsyncClient, redis: Redis
    ) -> None:
        await redis.script_load(self.SOURCE)
        await redis.evalsha(self.SHA, ["n"], ["2"])
        await http.post("/pipeline", json=[["EVALSHA", self.SHA, 1, "n", 1], ["get", "n"], ["GET", "n"]])
        await http.post("/multi-exec", json=[["INCR", "n"], ["INCR", "n"]])
        stats = (await http.get("/_control/stats")).json()
        assert stats["commands"] == {"SCRIPT": 1, "EVALSHA": 2, "GET": 2, "INCR": 2}
        assert stats["scripts"] == {"bump": 2}
        assert stats["total"] == 7
        await http.post("/_control/stats/reset")
        assert (await http.get("/_control/stats")).json() == {"commands": {}, "scripts": {}, "total": 0}


class TestOfficialClient:
    async def test_values_come_back_as_they_went_in(self, redis: Redis) -> None:
        value = json.dumps({"text": "é\u2028\n", "list": [1, 2.5, None]})
        await redis.set("foo", value, ex=50)
        assert await redis.get("foo") == value
        await redis.hset("h", values={"a": "1", "b": "é"})
        assert await redis.hgetall("h") == {"a": "1", "b": "é"}

    async def test_pipelines_and_transactions_give_their_results_in_order(self, redis: Redis) -> None:
        pipeline = redis.pipeline()
        pipeline.set("a", "1")
        pipeline.incr("a")
        assert await pipeline.exec() == [True, 2]
        transaction = redis.multi()
        transaction.incr("a")
        transaction.get("a")
        assert await transaction.exec() == [3, "3"]

    async def test_a_command_error_is_an_upstash_error(self, redis: Redis) -> None:
        await redis.set("text", "abc")
        with pytest.raises(UpstashError, match=r"WRONGTYPE Operation"):
            await redis.lpush("text", "x")
