"""`./build.sh soak --runs N --seed S`: random batches under random faults, each run from its own seed.

Run n has the seed S + n. One that fails is replayed exactly by its own seed: `--runs 1 --seed THAT`.
"""

import argparse
import json
import logging
import os
import sys
import warnings
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from hashlib import sha256
from time import monotonic

from tests.local_cloud.upstash.engine import find_engine, running_engine
from tests.soak.plan import SCENARIOS
from tests.soak.redis import VirtualRedis
from tests.soak.run import Verdict, run

RUNS_AT_ONCE = 2
RUNS_PER_TASK = 10


def run_some(scenario: str, seeds: Sequence[int]) -> list[Verdict]:
    logging.disable(logging.CRITICAL)
    # Coroutines of dead processes are closed with their run, and nobody is there to hear of it.
    sys.unraisablehook = lambda unraisable: None
    warnings.simplefilter("ignore", RuntimeWarning)
    with running_engine(find_engine(os.environ)) as engine:
        redis = VirtualRedis(engine.socket_path)
        try:
            return [run(SCENARIOS[scenario](seed), redis) for seed in seeds]
        finally:
            redis.close()


def report(verdicts: Sequence[Verdict], took_s: float) -> dict[str, object]:
    """`lost_or_doubled` counts what a result line or a count had wrong; `trace` is the same for the same seeds."""
    injected = Counter[str]()
    for verdict in verdicts:
        injected.update(verdict.injected)
    requests = sum(verdict.requests for verdict in verdicts)
    computed = sum(verdict.computed for verdict in verdicts)
    return {
        "runs": len(verdicts),
        "failed_seeds": [verdict.seed for verdict in verdicts if verdict.violations],
        "violations": sum(len(verdict.violations) for verdict in verdicts),
        "batches": sum(verdict.batches for verdict in verdicts),
        "requests": requests,
        "computed_per_request": round(computed / max(1, requests), 4),
        "most_polls_after_faults": max(verdict.polls_after_faults for verdict in verdicts),
        "virtual_hours": round(sum(verdict.virtual_s for verdict in verdicts) / 3600, 1),
        "seconds": round(took_s, 1),
        "trace": sha256("".join(verdict.trace for verdict in verdicts).encode()).hexdigest()[:16],
        "flavours": dict(sorted(Counter(verdict.flavour for verdict in verdicts).items())),
        "faults_injected": dict(sorted(injected.items())),
    }


def tell(verdicts: Sequence[Verdict]) -> None:
    """What was violated, as soon as it is known."""
    for verdict in verdicts:
        for violation in verdict.violations:
            print(f"seed {verdict.seed} ({verdict.flavour}): {violation}", file=sys.stderr, flush=True)


def main() -> None:
    arguments = argparse.ArgumentParser(prog="./build.sh soak", description=__doc__)
    arguments.add_argument("--runs", type=int, default=40)
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--scenario", choices=SCENARIOS, default="mixed")
    wanted = arguments.parse_args()
    if os.environ.get("PYTHONHASHSEED") != "0":
        # The order of a set of texts is a part of what must come out the same.
        environment = {**os.environ, "PYTHONHASHSEED": "0"}
        os.execve(  # noqa: S606 - itself
            sys.executable, [sys.executable, "-m", "tests.soak", *sys.argv[1:]], environment
        )
    seeds = range(wanted.seed, wanted.seed + wanted.runs)
    began_s = monotonic()
    tasks = [seeds[start : start + RUNS_PER_TASK] for start in range(0, len(seeds), RUNS_PER_TASK)]
    verdicts: list[Verdict] = []
    with ProcessPoolExecutor(RUNS_AT_ONCE) as pool:
        for some in pool.map(partial(run_some, wanted.scenario), tasks):
            verdicts += some
            tell(some)
    print(json.dumps(report(verdicts, monotonic() - began_s)))
    sys.exit(any(verdict.violations for verdict in verdicts))


if __name__ == "__main__":
    main()
