"""Facts about RunPod's queue: how jobs are submitted, looked at, stopped and forgotten."""

import secrets

from tests.smoke.endpoint import FINAL, Answer, Json, NoAnswer, error_of
from tests.smoke.facts import LONG_JOB, Fact, Finding, Verdict, held, learned, not_checked
from tests.smoke.platform import Platform

COMPLETED_KEYS = {"delayTime", "executionTime", "id", "output", "status"}
HEALTH_KEYS = {
    "jobs": {"completed", "failed", "inProgress", "inQueue", "retried"},
    "workers": {"idle", "initializing", "ready", "running", "throttled", "unhealthy"},
}
OVER_RUN_LIMIT_BYTES = 11 * 1024 * 1024
HEALTH = {"operation": "health"}
MISTAKE = {"operation": "verify-platform"}


async def run_answers_an_id(platform: Platform) -> Finding:
    job = await platform.run(platform.batch, HEALTH)
    fine = isinstance(job.get("id"), str) and job.get("status") == "IN_QUEUE"
    return held(fine, f"keys {sorted(job)}, status {job.get('status')}")


async def status_shows_the_output(platform: Platform) -> Finding:
    job = await platform.until_final(platform.batch, await platform.run(platform.batch, HEALTH))
    output = job.get("output")
    fine = (
        job["status"] == "COMPLETED"
        and job.keys() >= COMPLETED_KEYS
        and isinstance(output, dict)
        and "ready" in output
    )
    return held(fine, f"{job['status']}, keys {sorted(job)}, output a {type(output).__name__}")


async def an_error_stays_a_string(platform: Platform) -> Finding:
    job = await platform.until_final(platform.batch, await platform.run(platform.batch, MISTAKE))
    error = error_of(job)
    seen = f"{job['status']}, error a {type(job.get('error')).__name__}"
    return held(
        job["status"] == "FAILED" and error is not None, f"{seen}{'' if error else ' that is not our JSON'}"
    )


async def empty_input_is_dropped(platform: Platform) -> Finding:
    try:
        job = await platform.until_final(platform.batch, await platform.run(platform.batch, {}))
    except NoAnswer as reason:
        return learned(f"no end: {reason}")
    return held(
        job["status"] != "COMPLETED" and error_of(job) is None, f"{job['status']}: {job.get('error')}"
    )


async def an_unknown_job_is_404(platform: Platform) -> Finding:
    answer = await platform.batch.send("GET", f"status/{secrets.token_hex(16)}-u1")
    return held(answer.status_code == 404, answer)


async def a_wrong_key_is_401(platform: Platform) -> Finding:
    answer = await platform.batch.send("GET", "health", api_key="rpa_not_a_key")
    if answer.status_code in (403, 404):
        return learned(answer.status_code)
    return held(answer.status_code == 401, answer.status_code)


async def health_has_its_shape(platform: Platform) -> Finding:
    answer = await platform.batch.send("GET", "health")
    seen = {name: set(part) for name, part in answer.fields.items() if isinstance(part, dict)}
    missing = {name: sorted(keys - seen.get(name, set())) for name, keys in HEALTH_KEYS.items()}
    more = {name: sorted(keys - HEALTH_KEYS.get(name, set())) for name, keys in seen.items()}
    return held(
        answer.status_code == 200 and not any(missing.values()),
        f"{answer.status_code}; missing {missing}, more {more}",
    )


async def run_refuses_over_10_mb(platform: Platform) -> Finding:
    padded: Json = {**MISTAKE, "padding": "x" * OVER_RUN_LIMIT_BYTES}
    answer = await platform.batch.send("POST", "run", {"input": padded})
    platform.note_job(platform.batch, answer.fields)
    return held(400 <= answer.status_code < 500, answer)


async def runsync_gives_an_id_back(platform: Platform) -> Finding:
    answer = await platform.mistral.send("POST", "runsync?wait=1000", platform.long_body())
    platform.note_job(platform.mistral, answer.fields)
    job = answer.fields
    if job.get("status") in FINAL:
        return not_checked(f"the long job was over at once: {_brief(answer)}")
    fine = answer.status_code == 200 and job.get("status") in ("IN_QUEUE", "IN_PROGRESS") and "id" in job
    return held(fine, _brief(answer))


async def an_overrun_fails(platform: Platform) -> Finding:
    policy = {"executionTimeout": platform.wanted.execution_timeout_ms}
    job = await platform.until_final(platform.mistral, await platform.run_long(policy=policy))
    seen = f"{job['status']}: {job.get('error')}"
    if job["status"] == "COMPLETED":
        return not_checked("the long job ended before its executionTimeout")
    return learned(seen) if job["status"] == "TIMED_OUT" else held(job["status"] == "FAILED", seen)


async def a_ttl_deletes(platform: Platform) -> Finding:
    job = await platform.run_long(policy={"ttl": platform.wanted.ttl_ms})
    last: list[str] = []

    async def gone() -> Finding | None:
        answer = await platform.mistral.send("GET", f"status/{job['id']}")
        last[:] = [_brief(answer)]
        if answer.status_code == 404:
            return held(True, "404")
        return held(False, _brief(answer)) if answer.fields.get("status") in FINAL else None

    try:
        return await platform.poll(gone, platform.wanted.ttl_ms / 1000 + platform.wanted.job_s, "not gone")
    except NoAnswer as reason:
        return Finding(Verdict.DIFFERS, f"{reason}; last {last}")


async def a_cancel_says_so(platform: Platform) -> Finding:
    job = await platform.run_long()
    answer = await platform.mistral.send("POST", f"cancel/{job['id']}")
    after = await platform.mistral.send("GET", f"status/{job['id']}")
    fine = answer.status_code == 200 and after.fields.get("status") == "CANCELLED"
    return held(fine, f"{_brief(answer)}, then /status {_brief(after)}")


async def an_unknown_cancel_is_harmless(platform: Platform) -> Finding:
    answer = await platform.batch.send("POST", f"cancel/{secrets.token_hex(16)}-u1")
    return learned(_brief(answer)) if answer.status_code < 500 else held(False, _brief(answer))


def _brief(answer: Answer) -> str:
    return f"{answer.status_code} {answer.fields.get('status') or answer.text[:100]}"


QUEUE = "docs/design.md#flow"
LIFE = "docs/design.md#a-shards-life"
CALLS = "README.md#operations"

FACTS = (
    Fact("/run", "an id at once, IN_QUEUE", QUEUE, (), run_answers_an_id),
    Fact("/status, completed", "the handler's output as it is", CALLS, (), status_shows_the_output),
    Fact(
        "/status, failed", "FAILED, and the service's error as a string", CALLS, (), an_error_stays_a_string
    ),
    Fact("input {}", "dropped: FAILED without an error of ours", CALLS, (), empty_input_is_dropped),
    Fact("/status of an unknown job", "404", LIFE, (), an_unknown_job_is_404),
    Fact("a wrong key", "401", CALLS, (), a_wrong_key_is_401),
    Fact("/health", "jobs and workers by state", CALLS, (), health_has_its_shape),
    Fact("/run over 10 MB", "refused", "README.md#limits", (), run_refuses_over_10_mb),
    Fact("/runsync over its wait", "200 with an id, not final", CALLS, LONG_JOB, runsync_gives_an_id_back),
    Fact("executionTimeout", "FAILED (TIMED_OUT will do)", LIFE, LONG_JOB, an_overrun_fails),
    Fact("ttl", "deletes a job, even a running one: 404", LIFE, LONG_JOB, a_ttl_deletes),
    Fact("/cancel", "200, and CANCELLED from then on", LIFE, LONG_JOB, a_cancel_says_so),
    Fact("/cancel of an unknown job", "any answer will do", LIFE, (), an_unknown_cancel_is_harmless),
    Fact(
        "429",
        "a refusal, with Retry-After or without",
        LIFE,
        (),
        "not provoked: that takes 1,000 calls in 10 s",
    ),
    Fact("524 at the edge", "a lost reply", CALLS, (), "not provoked: that takes a call of 100 s"),
    Fact(
        "a lost worker's job",
        "queued again once, same id",
        LIFE,
        (),
        "not provoked: no worker is killed here",
    ),
)
