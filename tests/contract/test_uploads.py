"""Parts of a batch over the real Redis: what they agree on, what is refused, and what a batch of them is like."""

import asyncio
import random
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from shared.adapters import keys
from shared.adapters.upstash import Upstash
from shared.core.sharding import SHARDS_PER_PART
from shared.errors import Conflict, InvalidRequest, NotFound, StateUnavailable, StorageUnavailable, TooLarge
from shared.flow.submission import Limits
from shared.flow.uploads import first_twice
from shared.ports.payloads import ids_key, input_key, order_key
from shared.ports.state import Committed, NewBatch, PartDraft, Reserved, ShardRef
from tests.conftest import Clock
from tests.contract.service import Service, build
from tests.contract.state import HOUR_MS, MISTRAL, Store, outcome, part_plan
from tests.contract.test_service import pages, settle

MODELS = ("mistral", "llama-70b")


def requests_of(count: int, first: int = 0, models: Sequence[str] = MODELS) -> list[dict[str, Any]]:
    return [
        {
            "custom_id": f"id-{number}",
            "params": {"messages": [{"role": "user", "content": f"hi {number}"}]},
            "metadata": {"model_hint": models[number % len(models)]},
        }
        for number in range(first, first + count)
    ]


async def upload(
    service: Service, part: int, requests: Sequence[Mapping[str, Any]], **more: Any
) -> dict[str, Any]:
    call = {"operation": "upload", "upload": "key", "part": part, "requests": list(requests), **more}
    return await service.operations.handle(call)


async def create(service: Service, parts: int, **more: Any) -> str:
    call = {"operation": "create", "upload": "key", "parts": parts, **more}
    return str((await service.operations.handle(call))["id"])


async def lines_of(service: Service, batch_id: str) -> list[dict[str, Any]]:
    return [line for page in await pages(service, batch_id) for line in page]


# Each example takes a hundred calls, so there are few, and none is made smaller.
@settings(
    max_examples=8,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(
    hints=st.lists(st.sampled_from(MODELS), min_size=2, max_size=30),
    cuts=st.sets(st.integers(1, 29), max_size=5),
    order=st.randoms(use_true_random=False),
    data=st.data(),
)
async def test_any_split_into_parts_in_any_order_gives_the_lines_of_one_create(
    redis: Upstash, hints: list[str], cuts: set[int], order: random.Random, data: st.DataObject
) -> None:
    await redis.execute("FLUSHALL")
    service = build(Store(redis), Limits())
    requests = requests_of(len(hints))
    for request, hint in zip(requests, hints, strict=True):
        request["metadata"] = {"model_hint": hint}
    whole = str((await service.operations.handle({"operation": "create", "requests": requests}))["id"])
    bounds = [0, *sorted(cut for cut in cuts if cut < len(hints)), len(hints)]
    parts = [(number, requests[bounds[number] : bounds[number + 1]]) for number in range(len(bounds) - 1)]
    order.shuffle(parts)
    for number, part in parts:
        await upload(service, number, part)
    batch_id = await create(service, len(parts))
    for id_ in (whole, batch_id):
        await settle(service, id_, text="x" * 300)
    assert await lines_of(service, batch_id) == await lines_of(service, whole)
    token = str(data.draw(st.integers(1, len(hints) - 1)))
    one, other = [
        await service.operations.handle({"operation": "results", "id": id_, "page": token})
        for id_ in (whole, batch_id)
    ]
    assert one == other


async def test_the_status_and_the_batchs_hash_are_the_same_size_for_one_part_and_for_many(
    store: Store,
) -> None:
    sizes = []
    for count in (1, 250):
        batch = await store.create(*[{"mistral": [4, 4], "llama-70b": [2]}] * count)
        assert (await store.batch(batch.id)).total == 10 * count
        fields = await store.redis.execute("HGETALL", keys.batch(batch.id))
        sizes.append(len(str(fields)))
    assert abs(sizes[1] - sizes[0]) < 40


async def test_shards_are_claimed_part_by_part_in_request_order_and_each_once(store: Store) -> None:
    batch = await store.create(
        {"mistral": [2, 1]}, {"llama-70b": [3]}, {"llama-70b": [1], "mistral": [2]}, {"mistral": [4]}
    )
    one, two, three = 0, 2 * SHARDS_PER_PART, 3 * SHARDS_PER_PART
    claims = await store.claim()
    assert [(claim.ref.shard, claim.requests) for claim in claims] == [
        (one, 2),
        (one + 1, 1),
        (two + 1, 2),
        (three, 4),
    ]
    assert await store.claim() == []
    assert (await store.batch(batch.id)).models == {"mistral": 9, "llama-70b": 4}
    stopped = await store.batches.stop(batch.id, "canceled")
    assert stopped.verdict == "stopped"
    assert (await store.batch(batch.id)).settled["canceled"] == 13


async def test_what_a_shard_of_a_later_part_is_split_into_has_numbers_of_its_own(store: Store) -> None:
    await store.prove()
    batch = await store.create({"mistral": [1]}, {"mistral": [1, 4]})
    for claim in (await store.run())[:2]:
        assert await store.settle(claim.ref, 1, outcome(1))
    ref = ShardRef(batch.id, SHARDS_PER_PART + 1)
    assert await store.requeue(ref, blame=True) == "queued"
    assert [(await store.die())[1] for _ in range(2)] == ["queued", "split"]
    shard = await store.shard(ref)
    assert shard is not None
    assert shard.halves == (SHARDS_PER_PART + 2, SHARDS_PER_PART + 3)


async def test_the_same_part_again_writes_nothing_and_another_body_is_a_conflict(service: Service) -> None:
    requests = requests_of(6)
    first = await upload(service, 0, requests)
    before = await service.store.dump()
    assert await upload(service, 0, requests) == first == {"upload": "key", "part": 0, "requests": 6}
    with pytest.raises(Conflict, match=r"^part: 0 was uploaded before with another body$"):
        await upload(service, 0, requests_of(6, 1))
    assert await service.store.dump() == before


async def test_of_two_bodies_for_one_part_at_once_one_stands_and_is_what_the_batch_runs(
    service: Service,
) -> None:
    bodies = [requests_of(5), requests_of(5, 100)]
    answers = await asyncio.gather(*(upload(service, 0, body) for body in bodies), return_exceptions=True)
    [won] = [index for index, answer in enumerate(answers) if isinstance(answer, dict)]
    assert isinstance(answers[1 - won], Conflict)
    batch_id = await create(service, 1)
    await settle(service, batch_id)
    lines = await lines_of(service, batch_id)
    assert [line["custom_id"] for line in lines] == [request["custom_id"] for request in bodies[won]]


@pytest.mark.parametrize("other", [{"stage": "email"}, {"expires_in_s": 60}], ids=["stage", "expiry"])
async def test_another_stage_or_expiry_in_a_later_part_or_in_the_create_is_a_conflict(
    service: Service, other: dict[str, Any]
) -> None:
    await upload(service, 0, requests_of(2), stage="polish", expires_in_s=100)
    given = {"stage": "polish", "expires_in_s": 100, **other}
    with pytest.raises(Conflict):
        await upload(service, 1, requests_of(2, 2), **given)
    with pytest.raises(Conflict, match=r"^(stage|expires_in_s): another one than of the uploaded parts$"):
        await create(service, 1, **given)
    record = await service.store.batch(await create(service, 1, stage="polish"))
    assert (record.stage, record.expires_ms - record.created_ms) == ("polish", 100_000)


async def test_a_part_that_exceeds_what_a_batch_may_hold_is_refused_and_the_others_stand(
    service: Service,
) -> None:
    await upload(service, 0, requests_of(30))
    before = await service.store.dump()
    with pytest.raises(TooLarge, match=r"^requests: at most 50 in a batch$"):
        await upload(service, 1, requests_of(21, 30))
    long = requests_of(1, 30)
    long[0]["params"]["system"] = "x" * 95_000
    with pytest.raises(TooLarge, match=r"^requests: at most 100000 bytes in a batch$"):
        await upload(service, 1, long)
    assert await service.store.dump() == before
    await upload(service, 1, requests_of(20, 30))
    assert (await service.store.batch(await create(service, 2))).total == 50


async def test_a_custom_id_in_two_parts_is_named_with_its_place_in_the_whole_batch(service: Service) -> None:
    await upload(service, 0, requests_of(5))
    await upload(service, 1, [*requests_of(2, 10), *requests_of(1, 3)])
    with pytest.raises(InvalidRequest) as caught:
        await create(service, 2)
    assert caught.value.message == "requests[7].custom_id: the same custom_id as requests[3]"
    assert caught.value.param == "requests[7].custom_id"


def test_the_first_digest_that_stands_twice_is_found_over_all_parts() -> None:
    digests = [bytes([number] * 16) for number in range(4)]
    assert first_twice([digests[0] + digests[1], digests[2] + digests[3]]) is None
    assert first_twice([digests[0] + digests[1], digests[2] + digests[1] + digests[0]]) == (1, 3)
    assert first_twice([]) is None


async def test_a_create_with_too_few_or_too_many_parts_says_which(service: Service) -> None:
    with pytest.raises(InvalidRequest, match=r"^parts\[0\]: not uploaded$"):
        await create(service, 1)
    await upload(service, 0, requests_of(2))
    await upload(service, 2, requests_of(2, 2))
    with pytest.raises(InvalidRequest, match=r"^parts\[1\]: not uploaded$"):
        await create(service, 3)
    with pytest.raises(InvalidRequest, match=r"^parts: 1 given, but part 2 was uploaded too$"):
        await create(service, 1)


async def test_an_upload_makes_one_batch_with_or_without_a_key(service: Service) -> None:
    await upload(service, 0, requests_of(4))
    ids = await asyncio.gather(
        *(create(service, 1) for _ in range(4)), create(service, 1, idempotency_key="k")
    )
    assert len(set(ids)) == 1
    for other in ({"priority": "high"}, {"priority": "low", "idempotency_key": "k2"}):
        with pytest.raises(Conflict, match=f"used before for {ids[0]} with another body"):
            await create(service, 1, **other)
    await service.operations.handle({"operation": "cancel", "id": ids[0]})
    await service.operations.handle({"operation": "delete", "id": ids[0]})
    assert await create(service, 1) == ids[0], "also after its delete"


async def test_an_idempotency_key_of_something_else_is_a_conflict_and_takes_nothing_of_the_upload(
    service: Service,
) -> None:
    other = {"operation": "create", "requests": requests_of(1), "idempotency_key": "k"}
    await service.operations.handle(other)
    await upload(service, 0, requests_of(4))
    with pytest.raises(Conflict, match=r"^idempotency_key: used before"):
        await create(service, 1, idempotency_key="k")
    batch_id = await create(service, 1)
    await settle(service, batch_id)
    assert len(await lines_of(service, batch_id)) == 4


async def test_a_part_that_comes_after_the_create_is_a_conflict_and_leaves_nothing(service: Service) -> None:
    await upload(service, 0, requests_of(4))
    batch_id = await create(service, 1)
    before = await service.store.dump()
    with pytest.raises(Conflict, match=rf"^upload: {batch_id} was made of it without this part$"):
        await upload(service, 1, requests_of(4, 4))
    await upload(service, 0, requests_of(4))
    assert await service.store.dump() == before


async def test_a_part_that_a_create_overtakes_is_refused_and_removed(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    await upload(service, 0, requests_of(4))
    reserve = service.uploads.reserve
    made: list[str] = []

    async def slowly(key: str, part: PartDraft) -> Reserved:
        answer = await reserve(key, part)
        monkeypatch.setattr(service.uploads, "reserve", reserve)
        # It looked before the part was reserved.
        await service.store.redis.execute("HDEL", keys.upload(key), "part:1")
        made.append(await create(service, 1))
        return answer

    monkeypatch.setattr(service.uploads, "reserve", slowly)
    with pytest.raises(Conflict):
        await upload(service, 1, requests_of(4, 4))
    names = await service.store.ttls_ms()
    nonce = (await service.store.batch(made[0])).nonce
    assert input_key(nonce, 0) in names
    assert input_key(nonce, SHARDS_PER_PART) not in names


@pytest.mark.parametrize("moment", ["reserve", "put", "confirm"])
async def test_a_part_that_broke_off_is_whole_when_it_is_sent_again(
    service: Service, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    owner = service.payloads if moment == "put" else service.uploads
    step = getattr(owner, moment)

    async def cut(*args: Any) -> Any:
        monkeypatch.setattr(owner, moment, step)
        await step(*args)
        raise StateUnavailable("cut")

    monkeypatch.setattr(owner, moment, cut)
    with pytest.raises(StateUnavailable):
        await upload(service, 0, requests_of(10))
    if moment != "confirm":
        with pytest.raises(InvalidRequest, match="not uploaded"):
            await create(service, 1)
    await upload(service, 0, requests_of(10))
    batch_id = await create(service, 1)
    await settle(service, batch_id)
    assert len(await lines_of(service, batch_id)) == 10


async def test_an_upload_that_ended_while_a_part_was_stored_says_so_and_leaves_nothing(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = service.payloads.put

    async def slowly(items: Mapping[str, bytes], ttl_ms: int) -> None:
        await put(items, ttl_ms)
        await service.store.redis.execute("DEL", keys.upload("key"))

    monkeypatch.setattr(service.payloads, "put", slowly)
    with pytest.raises(Conflict, match=r"^upload: it ended before this part came; send all parts again$"):
        await upload(service, 0, requests_of(4))
    assert await service.store.ttls_ms() == {}


async def test_an_upload_ends_by_itself_and_its_payloads_outlive_any_batch_of_it(store: Store) -> None:
    service = build(store, Limits(retain_ms=HOUR_MS))
    await upload(service, 0, requests_of(4), expires_in_s=7200)
    await upload(service, 1, requests_of(4, 4), expires_in_s=7200)
    lives_ms = await store.ttls_ms()
    day_ms = 24 * HOUR_MS
    assert day_ms - 10_000 < lives_ms.pop(keys.upload("key")) <= day_ms
    longest_ms = day_ms + 2 * HOUR_MS + HOUR_MS + HOUR_MS
    assert lives_ms
    assert all(longest_ms - 10_000 < life_ms <= longest_ms for life_ms in lives_ms.values())
    batch_id = await create(service, 2)
    lives_ms = await store.ttls_ms()
    for name in (keys.upload("key"), keys.batch(batch_id), keys.plan(batch_id)):
        assert 3 * HOUR_MS - 10_000 < lives_ms[name] <= 3 * HOUR_MS


async def test_digests_are_kept_until_the_create_alone(service: Service) -> None:
    for number in range(2):
        await upload(service, number, requests_of(3, 3 * number))
    batch_id = await create(service, 2)
    nonce = (await service.store.batch(batch_id)).nonce
    names = await service.store.ttls_ms()
    assert {ids_key(nonce, 0), ids_key(nonce, 1)}.isdisjoint(names)
    assert {order_key(nonce, 0), order_key(nonce, 1)} <= names.keys()


async def test_an_upload_whose_create_lost_a_race_for_its_key_can_still_become_a_batch(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(2):
        await upload(service, number, requests_of(3, 3 * number))
    other = {"operation": "create", "requests": requests_of(1), "idempotency_key": "mine"}
    check = service.payloads.get

    async def beaten(names: Sequence[str]) -> list[bytes | None]:
        monkeypatch.setattr(service.payloads, "get", check)
        await service.operations.handle(other)
        return await check(names)

    monkeypatch.setattr(service.payloads, "get", beaten)
    with pytest.raises(Conflict):
        await create(service, 2, idempotency_key="mine")
    batch_id = await create(service, 2, idempotency_key="another")
    await settle(service, batch_id)
    assert len(await lines_of(service, batch_id)) == 6


async def test_a_create_whose_twin_drops_the_digests_gives_the_twins_batch(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(2):
        await upload(service, number, requests_of(3, 3 * number))
    check, made = service.payloads.get, []

    async def beaten(names: Sequence[str]) -> list[bytes | None]:
        monkeypatch.setattr(service.payloads, "get", check)
        made.append(await create(service, 2))
        return await check(names)

    monkeypatch.setattr(service.payloads, "get", beaten)
    assert [await create(service, 2)] == made


async def test_digests_go_with_a_create_that_was_sent_again_after_a_lost_reply(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(2):
        await upload(service, number, requests_of(3, 3 * number))
    commit = service.store.batches.commit

    async def twice(batch: NewBatch) -> Committed:
        await commit(batch)
        return await commit(batch)

    monkeypatch.setattr(service.store.batches, "commit", twice)
    batch_id = await create(service, 2)
    nonce = (await service.store.batch(batch_id)).nonce
    assert {ids_key(nonce, 0), ids_key(nonce, 1)}.isdisjoint(await service.store.ttls_ms())


async def test_a_delete_that_was_cut_short_in_any_part_is_finished_by_the_next(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        await upload(service, number, requests_of(6, 6 * number))
    batch_id = await create(service, 3)
    await settle(service, batch_id)
    remove, calls = service.payloads.delete, 0

    async def removes(names: Sequence[str]) -> None:
        nonlocal calls
        calls += 1
        if calls % 3 == 0:
            raise StorageUnavailable("cut")
        await remove(names)

    monkeypatch.setattr(service.payloads, "delete", removes)
    with pytest.raises(StorageUnavailable):
        await service.operations.handle({"operation": "delete", "id": batch_id})
    with pytest.raises(NotFound):
        await service.operations.handle({"operation": "status", "id": batch_id})
    monkeypatch.setattr(service.payloads, "delete", remove)
    await service.operations.handle({"operation": "delete", "id": batch_id})
    names = await service.store.ttls_ms()
    assert [name for name in names if name.startswith(("payload:", "batch:"))] == []


async def test_what_failed_in_a_batch_of_parts_is_retried_part_by_part_in_its_order(
    service: Service, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(4):
        await upload(service, number, requests_of(6, 6 * number), expires_in_s=60)
    batch_id = await create(service, 4)
    await settle(service, batch_id, limit=2)
    clock.advance_s(61)
    await service.operations.handle({"operation": "reconcile"})
    lines = await lines_of(service, batch_id)
    expired = [line["custom_id"] for line in lines if line["status"] == "expired"]
    assert 12 < len(expired) < 24
    put, stored = service.payloads.put, []

    async def counted(items: Mapping[str, bytes], ttl_ms: int) -> None:
        stored.append(len(items))
        await put(items, ttl_ms)

    monkeypatch.setattr(service.payloads, "put", counted)
    again = str((await service.operations.handle({"operation": "retry_failed", "id": batch_id}))["id"])
    assert 3 <= len(stored) <= 4, "one part after the other"
    clock.offset_ms = 0
    await settle(service, again)
    assert [line["custom_id"] for line in await lines_of(service, again)] == expired


async def test_a_window_of_one_shard_is_found_behind_many_parts_of_another_model(store: Store) -> None:
    await store.create(*[{"llama-70b": [1]}] * 300, {"mistral": [3]})
    [claim] = await store.claim(endpoint=MISTRAL)
    assert (claim.ref.shard, claim.requests) == (300 * SHARDS_PER_PART, 3)


async def test_a_plan_reads_back_as_it_was_given(store: Store) -> None:
    batch = await store.create({"mistral": [2]}, {"llama-70b": [3], "mistral": [1]})
    assert await store.batches.part_totals(batch.id) == [2, 4]
    assert await store.batches.part(batch.id, 1) == part_plan({"llama-70b": [3], "mistral": [1]}, 1)
    assert await store.batches.part(batch.id, 2) is None
