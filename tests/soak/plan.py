"""What happens in one run, from its seed alone: batches, processes, weather and blows."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from tests.soak.faults import BLOWS, ENGINE, JOBS, RATED, REDIS, RUN, STATUS, STORAGE, WEBHOOKS, Weather

Request = dict[str, object]


@dataclass(frozen=True)
class BatchPlan:
    """`poll_s`: how often its caller asks for the status (None: never). `parts`: how many it is uploaded in (0: it
    comes with its create). Times are virtual seconds from its create."""

    key: str
    stage: str
    requests: Sequence[Request]
    start_s: float
    poll_s: float | None
    creates: int
    cancel_s: float | None
    expires_in_s: int | None
    deletes: bool
    storm: int
    parts: int = 0


@dataclass(frozen=True)
class Blow:
    """`kind` befalls the `target`-th process that there is then: at a time, or before its `call`-th call after it."""

    kind: str
    at_s: float
    target: int
    call: int
    lasts_s: float


@dataclass(frozen=True)
class RunPlan:
    seed: int
    flavour: str
    batches: Sequence[BatchPlan]
    weather: Sequence[Weather]
    blows: Sequence[Blow]
    mistral_workers: int
    llama_workers: int
    batch_workers: int
    faults_end_s: float
    concurrency: int = 4
    # Milliseconds for each token: a whole answer takes seconds, or up to a minute.
    tpot_ms: float = 20.0
    # When `health` must say that an endpoint's workers die.
    broken_s: float | None = None


FLAVOURS = ("calm", "light", "single", "storm", "blackout", "blows", "poison", "everything")
# Each group, so that a single fault of a run is often one that matters.
GROUPS = (REDIS, RUN, STATUS, JOBS, WEBHOOKS, STORAGE, ENGINE)


def mixed(seed: int) -> RunPlan:
    """Anything: batches of any kind under the flavour that the seed gives."""
    rng = random.Random(f"plan:{seed}")
    flavour = FLAVOURS[seed % len(FLAVOURS)]
    end_s = rng.uniform(60, 300)
    poisoned = flavour == "poison" or (flavour == "everything" and rng.random() < 0.3)
    return RunPlan(
        seed=seed,
        flavour=flavour,
        batches=[_batch(rng, seed, number, poisoned) for number in range(rng.randint(1, 4))],
        weather=_weather(rng, flavour, end_s),
        blows=_blows(rng, flavour, end_s, poisoned),
        mistral_workers=rng.randint(1, 3),
        llama_workers=rng.randint(1, 2),
        batch_workers=rng.randint(1, 3),
        faults_end_s=end_s if flavour != "calm" else 0.0,
        # The last draw, so that it changes no other.
        tpot_ms=rng.choice((20.0, 20.0, 400.0)),
    )


def poison(seed: int) -> RunPlan:
    """Sixteen shards in one engine, one of whose requests kills it."""
    rng = random.Random(f"poison:{seed}")
    culprit = rng.randrange(128)
    warm_up = _plain_batch(f"s{seed}b0", [_plain_request(f"s{seed}b0r0", False)])
    requests = [_plain_request(f"s{seed}b1r{index}", index == culprit) for index in range(128)]
    batches = [warm_up, _plain_batch(f"s{seed}b1", requests, start_s=30.0)]
    return RunPlan(seed, "poison", batches, (), (), 1, 1, 1, 0.0, concurrency=16)


def bad_image(seed: int) -> RunPlan:
    """Engines that die of whatever they are given, from the start or after a good hour, until a better image comes."""
    rng = random.Random(f"bad image:{seed}")
    from_s = rng.choice((0.0, 30.0))
    to_s = from_s + 1800.0
    # Now and then there is but one request, which takes all deaths.
    crowd = rng.choice(([], [(40, from_s + 10), (3, from_s + 60)]))
    batches = [
        _plain_batch(
            f"s{seed}b{number}", [_plain_request(f"s{seed}b{number}r{n}", False) for n in range(count)], at_s
        )
        for number, (count, at_s) in enumerate([(1, 0.0), (1, from_s + 5), *crowd])
    ]
    weather = [Weather("engine_dies", 1.0, from_s, to_s)]
    return RunPlan(seed, "bad-image", batches, weather, (), rng.randint(1, 2), 1, 1, to_s, broken_s=to_s - 1)


SCENARIOS = {"mixed": mixed, "poison": poison, "bad-image": bad_image}


def _plain_batch(name: str, requests: Sequence[Request], start_s: float = 0.0) -> BatchPlan:
    return BatchPlan(f"key-{name}", "email", requests, start_s, 5.0, 1, None, None, False, 0)


def _plain_request(name: str, poisoned: bool) -> Request:
    content = f"<{name}> {'[[kill]]' if poisoned else ''}"
    return {
        "custom_id": name,
        "params": {"messages": [{"role": "user", "content": content}], "max_tokens": 40},
    }


def _batch(rng: random.Random, seed: int, number: int, has_poison: bool) -> BatchPlan:
    count = rng.choice((1, 2, 7, 20, 40, 80))
    name = f"s{seed}b{number}"
    poisoned = set(rng.sample(range(count), rng.randint(1, 2) if count > 2 else 0)) if has_poison else set()
    requests = [_request(rng, f"{name}r{index}", index in poisoned) for index in range(count)]
    return BatchPlan(
        key=f"key-{name}",
        stage=rng.choice(("sales_intel", "subject", "email", "polish")),
        requests=requests,
        start_s=rng.choice((0.0, rng.uniform(0, 60))),
        poll_s=rng.choice((1.0, 2.0, 5.0, 15.0, None)),
        creates=rng.choice((1, 1, 1, 2, 5)),
        cancel_s=rng.uniform(0, 40) if rng.random() < 0.2 else None,
        expires_in_s=rng.randint(60, 400) if rng.random() < 0.1 else None,
        deletes=rng.random() < 0.5,
        storm=200 if rng.random() < 0.02 else rng.choice((0, 0, 10)),
        # Drawn apart, so that it changes no other draw.
        parts=random.Random(f"parts:{name}").choice((0, 0, 1, 3)),
    )


def _request(rng: random.Random, name: str, poisoned: bool) -> Request:
    marker = "[[kill]]" if poisoned else rng.choices(("", "[[error]]", "[[busy-once]]"), (94, 3, 3))[0]
    content = f"<{name}> {marker}" + "x" * rng.choice((0, 40, 400))
    request: Request = {
        "custom_id": rng.choice((name, f"{name} é {{}}", f"{name}:*")),
        "params": {"messages": [{"role": "user", "content": content}], "max_tokens": rng.choice((20, 200))},
    }
    if rng.random() < 0.3:
        request["metadata"] = {"model_hint": rng.choice(("mistral", "llama-70b"))}
    return request


def _weather(rng: random.Random, flavour: str, end_s: float) -> list[Weather]:
    if flavour == "single":
        name = rng.choice(rng.choice(GROUPS))
        return [Weather(name, rng.choice((0.2, 0.5, 0.9)), 0, end_s)]
    if flavour == "blackout":
        group = rng.choice((REDIS, RUN, STATUS, STORAGE))
        from_s = rng.uniform(0, 60)
        return [Weather(rng.choice(group), 1.0, from_s, min(end_s, from_s + rng.uniform(10, 120)))]
    rate, most = {"light": (0.05, 4), "storm": (0.25, 12), "everything": (0.1, 20)}.get(flavour, (0.0, 0))
    return [Weather(name, rng.uniform(0, rate), 0, end_s) for name in rng.sample(RATED, most)]


def _blows(rng: random.Random, flavour: str, end_s: float, has_poison: bool) -> list[Blow]:
    if flavour not in ("blows", "poison", "everything"):
        return []
    # A request that dies alone twice is taken for poison: beside poison, one more death must not make it so.
    most = 1 if has_poison else 4
    return [
        Blow(
            rng.choice(BLOWS),
            rng.uniform(1, end_s),
            rng.randrange(100),
            rng.randrange(40),
            rng.uniform(5, 200),
        )
        for _ in range(rng.randint(0 if has_poison else 1, most))
    ]
