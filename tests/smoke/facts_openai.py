"""Facts about RunPod's OpenAI route: what its edge makes of a worker's chunks and errors."""

import httpx

from tests.smoke.endpoint import Json, NoAnswer
from tests.smoke.facts import LONG_JOB, Fact, Finding, held
from tests.smoke.platform import Platform


async def a_list_is_unwrapped(platform: Platform) -> Finding:
    answer = await platform.mistral.send("POST", "openai/v1/chat/completions", _chat(max_tokens=4))
    fine = answer.status_code == 200 and bool(answer.fields.get("choices"))
    return held(fine, f"{answer.status_code}, body a {type(answer.body).__name__}")


async def events_pass_through(platform: Platform) -> Finding:
    text = await _stream(platform, _chat(max_tokens=4, stream=True))
    events = [event for event in text.split("\n\n") if event.strip()]
    fine = (
        bool(events) and all(event.startswith("data: ") for event in events) and events[-1] == "data: [DONE]"
    )
    return held(fine, f"{len(events)} events, the last one {events[-1][:60]!r}" if events else "no events")


async def an_openai_error_passes(platform: Platform) -> Finding:
    answer = await platform.mistral.send(
        "POST", "openai/v1/chat/completions", {**_chat(max_tokens=4), "n": -1}
    )
    error = answer.fields.get("error")
    fine = answer.status_code == 400 and isinstance(error, dict) and error.get("code") == 400
    return held(fine, answer)


async def another_failure_is_an_error(platform: Platform) -> Finding:
    """The batch endpoint knows no such input: a job that fails for certain."""
    answer = await platform.batch.send("POST", "openai/v1/chat/completions", _chat(max_tokens=4))
    return held(answer.status_code >= 400, answer)


def _chat(**fields: object) -> Json:
    return {"model": "mistral", "messages": [{"role": "user", "content": "Say yes."}], **fields}


async def _stream(platform: Platform, body: Json) -> str:
    endpoint = platform.mistral
    headers = {"Authorization": f"Bearer {endpoint.api_key}"}
    try:
        answer = await platform.client.post(
            f"{endpoint.url}/openai/v1/chat/completions", json=body, headers=headers
        )
    except httpx.HTTPError as error:
        raise NoAnswer(f"the stream broke: {type(error).__name__}") from None
    return answer.text.replace("\r\n", "\n")


OPENAI = "README.md#operations"

FACTS = (
    Fact("/openai, one chunk", "the chunk itself is the body", OPENAI, LONG_JOB, a_list_is_unwrapped),
    Fact("/openai, a stream", "events pass as the worker wrote them", OPENAI, LONG_JOB, events_pass_through),
    Fact("/openai, an OpenAI error", "passes with its own status", OPENAI, LONG_JOB, an_openai_error_passes),
    Fact("/openai, any failed job", "an error status", OPENAI, (), another_failure_is_an_error),
)
