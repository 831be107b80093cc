"""The checks of `./build.sh smoke`: each makes its own batches, and says in one line what it found."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tests.smoke.endpoint import Json
from tests.smoke.report import Unexpected, expect
from tests.smoke.service import Refused, Service
from tests.smoke.settings import SmokeSection
from tests.smoke.shapes import (
    Batch,
    Created,
    Deleted,
    ErrorBody,
    Health,
    Listing,
    Metrics,
    Results,
    check_shape,
)

SHORT_TOKENS = 8
LONG_TOKENS = 1024


@dataclass(frozen=True)
class Smoke:
    service: Service
    settings: SmokeSection

    @property
    def models(self) -> list[str]:
        return sorted(set(self.settings.stages.values()))

    def stage_of(self, model: str) -> str:
        return next(stage for stage, served in self.settings.stages.items() if served == model)


@dataclass(frozen=True)
class Check:
    name: str
    run: Callable[[Smoke], Awaitable[str]]


def request(custom_id: str, max_tokens: int = SHORT_TOKENS, **metadata: str) -> Json:
    content = f"Write a short greeting for {custom_id}."
    return {
        "custom_id": custom_id,
        "params": {"messages": [{"role": "user", "content": content}], "max_tokens": max_tokens},
        **({"metadata": metadata} if metadata else {}),
    }


async def answer_health(smoke: Smoke) -> str:
    health = await smoke.service.call("health")
    check_shape(Health, health)
    parts = {"redis": health["redis"], "storage": health["storage"], **health["endpoints"]}
    bad = {name: part for name, part in parts.items() if not part["ok"]}
    expect(health["ready"] and not bad, "every part to answer", bad or health)
    expect(set(health["endpoints"]) >= set(smoke.models), f"endpoints of {smoke.models}", health["endpoints"])
    return f"{', '.join(parts)} answer"


async def have_their_shapes(smoke: Smoke) -> str:
    made = await smoke.service.create(
        smoke.stage_of(smoke.models[0]), [request("shape_1"), request("shape_2")]
    )
    check_shape(Created, made)
    check_shape(Batch, await smoke.service.call("status", id=made["id"]))
    status = await smoke.service.wait(made["id"])
    check_shape(Batch, status)
    expect(status["ended_at"] is not None, "ended_at of an ended batch", status)
    check_shape(Results, await smoke.service.call("results", id=made["id"]))
    return "create, status and results as documented"


async def follow_the_stage(smoke: Smoke) -> str:
    for stage, model in smoke.settings.stages.items():
        status, lines = await smoke.service.complete(stage, [request(f"stage_{stage}")])
        expect(status["models"] == {model: 1}, f"stage {stage} on {model}", status["models"])
        expect(lines[0].get("model") == model, f"a line of stage {stage} by {model}", lines[0])
    return ", ".join(f"{stage} -> {model}" for stage, model in smoke.settings.stages.items())


async def obey_the_hint(smoke: Smoke) -> str:
    stage, wanted = next(iter(smoke.settings.stages)), smoke.models
    requests = [request(f"hint_{model}", model_hint=model) for model in wanted]
    _, lines = await smoke.service.complete(stage, requests)
    expect([line.get("model") for line in lines] == wanted, f"lines by {wanted} in stage {stage}", lines)
    return f"{stage} with hints ran on {' and '.join(wanted)}"


async def give_every_id_back(smoke: Smoke) -> str:
    odd = ["lead 42/ä ✓", "x" * 256, '{"a": "b"}']
    ids = [*odd, *(f"lead_{n}_email" for n in range(smoke.settings.requests - len(odd)))]
    hints = [smoke.models[n % len(smoke.models)] for n in range(len(ids))]
    requests = [request(custom_id, model_hint=hint) for custom_id, hint in zip(ids, hints, strict=True)]
    status, lines = await smoke.service.complete(None, requests)
    seen = [line["custom_id"] for line in lines]
    different = [f"{n}: {a!r} for {b!r}" for n, (a, b) in enumerate(zip(seen, ids, strict=False)) if a != b]
    expect(seen == ids, f"{len(ids)} ids in order", different or f"{len(seen)} ids")
    failed = [line for line in lines if line["status"] != "succeeded"]
    expect(not failed, "every request succeeded", failed)
    expect(status["counts"]["succeeded"] == len(ids), f"{len(ids)} succeeded", status["counts"])
    return f"{len(ids)} ids, in order, over {len(smoke.models)} models"


@dataclass(frozen=True)
class Mistake:
    """A call that must be refused, and how."""

    fields: Json
    status_code: int
    type: str
    param: str | None


INVALID = "invalid_request_error"
MISTAKES = (
    Mistake({"operation": "create"}, 400, INVALID, "requests"),
    Mistake(
        {"operation": "create", "requests": [{"custom_id": "a", "params": {"messages": []}}]},
        *(400, INVALID, "requests[0].params.messages"),
    ),
    Mistake(
        {"operation": "create", "stage": "email", "requests": [request("a"), request("a")]},
        *(400, INVALID, "requests[1].custom_id"),
    ),
    Mistake(
        {"operation": "create", "requests": [request("a", model_hint="no-such-model")]},
        *(400, INVALID, "requests[0].metadata.model_hint"),
    ),
    Mistake(
        {"operation": "create", "stage": "no-such-stage", "requests": [request("a")]}, 400, INVALID, "stage"
    ),
    Mistake({"operation": "no-such-operation"}, 400, INVALID, "operation"),
    Mistake({"operation": "status", "id": f"batch_{0:024x}"}, 404, "not_found_error", "id"),
)


async def name_the_field(smoke: Smoke) -> str:
    for mistake in MISTAKES:
        await refused(smoke, mistake)
    return f"{len(MISTAKES)} mistakes, each with its type and field"


async def refused(smoke: Smoke, mistake: Mistake) -> None:
    wanted = f"{mistake.status_code} {mistake.type} with param {mistake.param} for {mistake.fields}"
    try:
        answer = await smoke.service.call(**mistake.fields)
    except Refused as error:
        check_shape(ErrorBody, error.body)
        seen = (error.status_code, error.type, error.param)
        expect(seen == (mistake.status_code, mistake.type, mistake.param), wanted, error.body)
    else:
        raise Unexpected(wanted, answer)


async def make_one_batch_per_key(smoke: Smoke) -> str:
    service, stage = smoke.service, next(iter(smoke.settings.stages))
    key = service.new_key()
    first, again = [await service.create(stage, [request("once")], idempotency_key=key) for _ in range(2)]
    expect(first == again, f"the batch {first['id']} again", again)
    other: Json = {
        "operation": "create",
        "stage": stage,
        "requests": [request("other")],
        "idempotency_key": key,
    }
    await refused(smoke, Mistake(other, 409, "conflict_error", "idempotency_key"))
    return "same key, same batch; another body is refused"


async def cancel_a_running_batch(smoke: Smoke) -> str:
    service, count = smoke.service, smoke.settings.cancel_requests
    requests = [request(f"cancel_{n}", LONG_TOKENS) for n in range(count)]
    batch_id = (await service.create(next(iter(smoke.settings.stages)), requests))["id"]
    early = Mistake({"operation": "results", "id": batch_id}, 400, "batch_not_ended", "id")
    await refused(smoke, early)
    await refused(smoke, Mistake({"operation": "delete", "id": batch_id}, 409, "conflict_error", "id"))
    status = await service.call("cancel", id=batch_id)
    check_shape(Batch, status)
    expect(status["cancel_requested_at"] is not None, "cancel_requested_at after a cancel", status)
    counts = (await service.wait(batch_id))["counts"]
    expect(counts.get("canceled", 0) > 0, f"canceled requests among {count}", counts)
    lines = await service.lines(batch_id)
    check_shape(Results, {"results": lines, "next_page": None})
    expect(len(lines) == count, f"{count} lines after a cancel", f"{len(lines)} lines")
    return f"{counts['canceled']} of {count} canceled; results and delete were refused before the end"


async def delete_a_batch(smoke: Smoke) -> str:
    service = smoke.service
    status, _ = await service.complete(smoke.stage_of(smoke.models[-1]), [request("gone")])
    check_shape(Deleted, await service.delete(status["id"]))
    await refused(smoke, Mistake({"operation": "status", "id": status["id"]}, 404, "not_found_error", "id"))
    return "gone at once: 404"


async def list_newest_first(smoke: Smoke) -> str:
    made = await smoke.service.create(smoke.stage_of(smoke.models[0]), [request("listed")])
    listing = await smoke.service.call("list", limit=100)
    check_shape(Listing, listing)
    batches = listing["batches"]
    expect(made["id"] in [batch["id"] for batch in batches], f"{made['id']} in the list", len(batches))
    times = [batch["created_at"] for batch in batches]
    expect(times == sorted(times, reverse=True), "the newest first", times[:5])
    return f"{len(batches)} batches"


async def show_metrics(smoke: Smoke) -> str:
    metrics = await smoke.service.call("metrics")
    check_shape(Metrics, metrics)
    return f"{len(metrics['metrics'])} figures"


CHECKS = (
    Check("health", answer_health),
    Check("shapes", have_their_shapes),
    Check("routing by stage", follow_the_stage),
    Check("routing by model_hint", obey_the_hint),
    Check("all ids, in order", give_every_id_back),
    Check("mistakes name their field", name_the_field),
    Check("idempotency key", make_one_batch_per_key),
    Check("cancel", cancel_a_running_batch),
    Check("delete", delete_a_batch),
    Check("list", list_newest_first),
    Check("metrics", show_metrics),
)
