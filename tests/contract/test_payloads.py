"""Payloads in their two tiers, against a local Redis and a local S3; the same promises hold for the fake."""

from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass

import pytest
import pytest_asyncio
from pydantic import SecretStr

from shared.adapters import s3 as s3_adapter
from shared.adapters.payloads import TieredPayloads
from shared.adapters.s3 import S3
from shared.adapters.upstash import Upstash
from shared.config import S3Config
from shared.errors import PlatformError, StorageUnavailable
from shared.ports.payloads import Payloads, input_key, order_key, output_key
from tests.fakes import FakePayloads
from tests.local_cloud.s3_servers import SECRET_ACCESS_KEY
from tests.local_cloud.storage import SERVERS, Storage, running_storage

INLINE_BYTES = 1000
TTL_MS = 60_000
SMALL, LARGE = b"small", bytes(range(256)) * 40


def config(storage: Storage, **changes: str) -> S3Config:
    fields = {**asdict(storage), **changes}
    return S3Config(
        endpoint_url=fields["endpoint_url"],
        bucket=fields["bucket"],
        access_key_id=fields["access_key_id"],
        secret_access_key=SecretStr(fields["secret_access_key"]),
        region="us-east-1",
    )


@pytest.fixture(scope="module")
def storages() -> Iterator[dict[str, Storage]]:
    """Each S3 server that the local cloud may have."""
    with ExitStack() as stack:
        yield {server: stack.enter_context(running_storage(server)) for server in SERVERS}


@pytest.fixture(params=SERVERS)
def storage(request: pytest.FixtureRequest, storages: dict[str, Storage]) -> Storage:
    return storages[request.param]


@pytest.fixture
def checking_storage(storages: dict[str, Storage]) -> Storage:
    """One that refuses a wrong signature: moto takes any."""
    return storages["rclone"]


@dataclass(frozen=True)
class Tiers:
    payloads: TieredPayloads
    redis: Upstash
    s3: S3


@pytest_asyncio.fixture
async def tiers(redis: Upstash, storage: Storage) -> AsyncIterator[Tiers]:
    s3 = S3(config(storage))
    yield Tiers(TieredPayloads(redis, s3, INLINE_BYTES), redis, s3)
    s3._threads.shutdown()


@pytest.fixture(params=["fake", "redis-only", *SERVERS])
def payloads(request: pytest.FixtureRequest) -> Payloads:
    if request.param == "fake":
        return FakePayloads(INLINE_BYTES)
    redis: Upstash = request.getfixturevalue("redis")
    if request.param == "redis-only":
        return TieredPayloads(redis, None, INLINE_BYTES)
    storages: dict[str, Storage] = request.getfixturevalue("storages")
    return TieredPayloads(redis, S3(config(storages[request.param])), INLINE_BYTES)


class TestAnyPayloads:
    async def test_what_is_put_is_got_in_the_order_asked_for(self, payloads: Payloads) -> None:
        await payloads.put({"payload:n:in:0": SMALL, "payload:n:in:1": LARGE}, TTL_MS)
        keys = ["payload:n:in:1", "payload:n:none", "payload:n:in:0", "payload:n:in:1"]
        assert await payloads.get(keys) == [LARGE, None, SMALL, LARGE]

    async def test_nothing_asked_for_is_nothing(self, payloads: Payloads) -> None:
        assert await payloads.get([]) == []
        await payloads.delete([])

    async def test_a_second_put_of_the_same_is_harmless(self, payloads: Payloads) -> None:
        for _ in range(2):
            await payloads.put({"payload:n:in:0": LARGE}, TTL_MS)
        assert await payloads.get(["payload:n:in:0"]) == [LARGE]

    async def test_what_is_deleted_is_gone_and_may_be_deleted_again(self, payloads: Payloads) -> None:
        await payloads.put({"payload:n:in:0": SMALL, "payload:n:in:1": LARGE}, TTL_MS)
        for _ in range(2):
            await payloads.delete(["payload:n:in:0", "payload:n:in:1", "payload:n:in:2"])
        assert await payloads.get(["payload:n:in:0", "payload:n:in:1"]) == [None, None]

    async def test_a_small_one_may_travel_inline(self, payloads: Payloads) -> None:
        text = payloads.inline(SMALL)
        assert text is not None
        assert text.isascii()

    async def test_a_reachable_store_passes_its_check(self, payloads: Payloads) -> None:
        await payloads.check()


class TestTiers:
    async def test_small_ones_stay_in_redis_and_large_ones_leave_a_mark(self, tiers: Tiers) -> None:
        await tiers.payloads.put({"payload:t1:in:0": SMALL, "payload:t1:in:1": LARGE}, TTL_MS)
        stored = await tiers.redis.execute("MGET", "payload:t1:in:0", "payload:t1:in:1")
        assert stored == [tiers.payloads.inline(SMALL), "s3:payload/t1/in/1"]
        assert await tiers.s3.get("payload/t1/in/1") == LARGE
        assert await tiers.s3.get("payload/t1/in/0") is None

    async def test_the_limit_is_that_of_the_stored_text(self, tiers: Tiers) -> None:
        assert tiers.payloads.inline(b"x" * 750) is not None
        assert tiers.payloads.inline(b"x" * 751) is None

    async def test_without_s3_everything_stays_in_redis(self, redis: Upstash) -> None:
        payloads = TieredPayloads(redis, None, INLINE_BYTES)
        assert payloads.inline(LARGE) is not None
        await payloads.put({"payload:t2:in:0": LARGE}, TTL_MS)
        assert await payloads.get(["payload:t2:in:0"]) == [LARGE]

    async def test_every_key_has_an_end(self, tiers: Tiers) -> None:
        await tiers.payloads.put({"payload:t3:in:0": SMALL, "payload:t3:in:1": LARGE}, TTL_MS)
        for key in ("payload:t3:in:0", "payload:t3:in:1"):
            assert 0 < await tiers.redis.execute("PTTL", key) <= TTL_MS

    async def test_an_inline_output_reads_as_if_it_had_been_put(self, tiers: Tiers) -> None:
        await tiers.redis.execute("SET", "payload:t4:out:0:1", tiers.payloads.inline(SMALL))
        assert await tiers.payloads.get(["payload:t4:out:0:1"]) == [SMALL]

    async def test_an_object_that_is_missing_reads_as_nothing(self, tiers: Tiers) -> None:
        await tiers.payloads.put({"payload:t5:in:0": LARGE}, TTL_MS)
        await tiers.s3.delete(["payload/t5/in/0"])
        assert await tiers.payloads.get(["payload:t5:in:0"]) == [None]

    async def test_a_delete_empties_both_tiers(self, tiers: Tiers) -> None:
        await tiers.payloads.put({"payload:t6:in:0": SMALL, "payload:t6:in:1": LARGE}, TTL_MS)
        await tiers.payloads.delete(["payload:t6:in:0", "payload:t6:in:1"])
        assert await tiers.redis.execute("EXISTS", "payload:t6:in:0", "payload:t6:in:1") == 0
        assert await tiers.s3.get("payload/t6/in/1") is None

    async def test_more_than_one_delete_call_takes_are_all_gone(self, tiers: Tiers) -> None:
        keys = [input_key("t7", shard) for shard in range(1100)]
        await tiers.payloads.put(dict.fromkeys((keys[0], keys[-1]), LARGE), TTL_MS)
        await tiers.payloads.delete(keys)
        assert await tiers.payloads.get([keys[0], keys[-1]]) == [None, None]


class TestStorageDown:
    @pytest.fixture(autouse=True)
    def _one_try(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(s3_adapter, "ATTEMPTS", 1)

    @pytest.mark.parametrize("call", ["put", "get", "delete", "check"])
    async def test_nobody_listening_is_typed(self, redis: Upstash, storage: Storage, call: str) -> None:
        s3 = S3(config(storage, endpoint_url="http://127.0.0.1:9"))
        payloads = TieredPayloads(redis, s3, INLINE_BYTES)
        await redis.execute("SET", "payload:d:in:0", "s3:payload/d/in/0")
        with pytest.raises(StorageUnavailable, match=call) as caught:
            await act(payloads, call)
        check_quiet(caught.value)

    @pytest.mark.parametrize("call", ["put", "delete", "check"])
    async def test_a_refusal_is_typed(self, redis: Upstash, storage: Storage, call: str) -> None:
        payloads = TieredPayloads(redis, S3(config(storage, bucket="no-such-bucket")), INLINE_BYTES)
        with pytest.raises(StorageUnavailable, match="NoSuchBucket") as caught:
            await act(payloads, call)
        check_quiet(caught.value)

    async def test_a_missing_bucket_is_not_a_missing_object(self, redis: Upstash, storage: Storage) -> None:
        payloads = TieredPayloads(redis, S3(config(storage, bucket="no-such-bucket")), INLINE_BYTES)
        await redis.execute("SET", "payload:d:in:0", "s3:payload/d/in/0")
        with pytest.raises(StorageUnavailable):
            await payloads.get(["payload:d:in:0"])

    @pytest.mark.parametrize(
        ("wrong", "code"),
        [("secret_access_key", "SignatureDoesNotMatch"), ("access_key_id", "InvalidAccessKeyId")],
    )
    @pytest.mark.parametrize("call", ["put", "get", "delete", "check"])
    async def test_a_wrong_key_is_typed_and_not_shown(
        self, redis: Upstash, checking_storage: Storage, call: str, wrong: str, code: str
    ) -> None:
        payloads = TieredPayloads(redis, S3(config(checking_storage, **{wrong: "wrong-key"})), INLINE_BYTES)
        await redis.execute("SET", "payload:d:in:0", "s3:payload/d/in/0")
        with pytest.raises(StorageUnavailable, match=f"refused {call}: {code}") as caught:
            await act(payloads, call)
        assert "wrong-key" not in str(caught.value)
        check_quiet(caught.value)

    async def test_a_failed_upload_leaves_no_mark(self, redis: Upstash, storage: Storage) -> None:
        payloads = TieredPayloads(redis, S3(config(storage, endpoint_url="http://127.0.0.1:9")), INLINE_BYTES)
        with pytest.raises(StorageUnavailable):
            await payloads.put({"payload:d:in:1": LARGE}, TTL_MS)
        assert await payloads.get(["payload:d:in:1"]) == [None]


async def act(payloads: TieredPayloads, call: str) -> None:
    match call:
        case "put":
            await payloads.put({"payload:d:in:0": LARGE}, TTL_MS)
        case "get":
            await payloads.get(["payload:d:in:0"])
        case "delete":
            await payloads.delete(["payload:d:in:0"])
        case _:
            await payloads.check()


def check_quiet(error: PlatformError) -> None:
    assert SECRET_ACCESS_KEY not in str(error)
    assert len(error.message) < 120
    assert error.__cause__ is None


def test_keys_name_the_batch_by_its_nonce_and_an_output_by_its_epoch() -> None:
    assert (input_key("n", 3), output_key("n", 3, 2), order_key("n", 2)) == (
        "payload:n:in:3",
        "payload:n:out:3:2",
        "payload:n:order:2",
    )
