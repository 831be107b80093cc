"""What vLLM is told: the words it is started with, and a request's parameters in its own terms."""

import json
from collections.abc import Sequence
from typing import Any

import pytest

from handlers.llama.model import CARD as LLAMA
from handlers.mistral.model import CARD as MISTRAL
from shared.config import load_settings
from shared.core.tools import offer_of
from shared.engines.sampling import GUIDANCE, sampling_fields
from shared.engines.vllm_engine import arguments
from shared.errors import ConfigError

REQUIRED = {
    "RUNPOD_API_KEY": "key",
    "UPSTASH_REDIS_REST_URL": "https://redis.example",
    "UPSTASH_REDIS_REST_TOKEN": "token",
    "MISTRAL_BASE_URL": "https://api.example/v2/one",
    "LLAMA_BASE_URL": "https://api.example/v2/two",
}


def words(card: Any = MISTRAL, **env: str) -> list[str]:
    return arguments(card, load_settings({**REQUIRED, **env}, [MISTRAL, LLAMA]).vllm)


def last(flag: str, of: Sequence[str]) -> str:
    """The value that counts: vLLM takes the last."""
    return of[len(of) - 1 - list(reversed(of)).index(flag) + 1]


def test_the_model_card_says_how_a_model_is_run() -> None:
    told = words(LLAMA)
    assert last("--model", told) == "meta-llama/Meta-Llama-3-70B-Instruct"
    assert last("--tensor-parallel-size", told) == "2"
    assert last("--max-model-len", told) == "8192"
    assert last("--gpu-memory-utilization", told) == "0.9"
    assert "--enable-prefix-caching" in told
    assert last("--scheduling-policy", told) == "priority"
    assert json.loads(last("--structured-outputs-config", told)) == {"backend": "guidance"}


def test_an_openai_client_may_name_the_model_in_every_way_but_a_pattern() -> None:
    told = words()
    names = told[told.index("--served-model-name") + 1 : told.index("--max-model-len")]
    assert names == ["mistral", "mistralai/Mistral-7B-Instruct-v0.3", "mistral-7b"]
    renamed = words(OPENAI_SERVED_MODEL_NAME_OVERRIDE="ours")
    assert renamed[renamed.index("--served-model-name") + 1] == "ours"


def test_vllm_args_win_over_the_card_and_single_variables_over_both() -> None:
    told = words(VLLM_ARGS="--max-model-len 4096 --seed 7 --kv-cache-dtype fp8", MAX_MODEL_LEN="2048")
    assert last("--max-model-len", told) == "2048"
    assert last("--kv-cache-dtype", told) == "fp8"
    assert last("--seed", told) == "7"


def test_every_single_variable_becomes_its_flag() -> None:
    told = words(
        MODEL_NAME="me/mine",
        MODEL_REVISION="v1",
        GPU_MEMORY_UTILIZATION="0.8",
        TENSOR_PARALLEL_SIZE="4",
        QUANTIZATION="awq",
        DTYPE="half",
        KV_CACHE_DTYPE="fp8",
        MAX_NUM_SEQS="64",
        ENABLE_PREFIX_CACHING="false",
        ENFORCE_EAGER="true",
    )
    for flag, value in {
        "--model": "me/mine",
        "--revision": "v1",
        "--gpu-memory-utilization": "0.8",
        "--tensor-parallel-size": "4",
        "--quantization": "awq",
        "--dtype": "half",
        "--kv-cache-dtype": "fp8",
        "--max-num-seqs": "64",
    }.items():
        assert last(flag, told) == value
    assert told.index("--no-enable-prefix-caching") > told.index("--enable-prefix-caching")
    assert "--enforce-eager" in told


def test_what_can_not_be_read_is_told_by_name() -> None:
    with pytest.raises(ConfigError) as caught:
        words(VLLM_ARGS="--seed '7", TRUST_REMOTE_CODE="perhaps")
    assert [fault.split()[0] for fault in caught.value.faults] == ["TRUST_REMOTE_CODE", "VLLM_ARGS"]


class TestSampling:
    def test_parameters_pass_under_their_names(self) -> None:
        given = {
            "temperature": 0.5,
            "top_p": 0.9,
            "top_k": 40,
            "min_p": 0.1,
            "seed": 3,
            "presence_penalty": 1.0,
        }
        assert sampling_fields({**given, "max_tokens": 100}, 500) == {**given, "max_tokens": 100}

    def test_nothing_is_said_of_what_is_null(self) -> None:
        assert sampling_fields({"max_tokens": 5, "top_p": None, "stop": None}, 9) == {"max_tokens": 5}

    def test_an_answer_ends_where_the_context_does(self) -> None:
        assert sampling_fields({"max_tokens": 2048, "min_tokens": 100}, 60) == {
            "max_tokens": 60,
            "min_tokens": 60,
        }

    def test_both_names_of_stop_sequences_count(self) -> None:
        fields = sampling_fields({"max_tokens": 5, "stop": ["a"], "stop_sequences": ["b"]}, 9)
        assert fields["stop"] == ["b", "a"]

    @pytest.mark.parametrize("count", [16, 17])
    def test_many_patterns_guide_nothing_for_they_would_take_for_ever_to_combine(self, count: int) -> None:
        several = [{"type": "string", "pattern": f"^.*a.{{{n}}}b$"} for n in range(count)]
        schema = {"allOf": several, "properties": {"pattern": {"const": {"pattern": "a"}}}}
        asked = {"type": "json_schema", "json_schema": {"schema": schema}}
        [guide] = sampling_fields({"max_tokens": 5, "response_format": asked}, 9)[
            "structured_outputs"
        ].values()
        assert guide["properties"] == schema["properties"]
        assert ("pattern" in guide["allOf"][0]) is (count == 16)

    @pytest.mark.parametrize("name", ["default", "enum", "const", "examples"])
    def test_patterns_count_in_properties_with_a_keywords_name_too(self, name: str) -> None:
        several = [{"type": "string", "pattern": f"^.*a.{{{n}}}b$"} for n in range(17)]
        schema = {"properties": {name: {"allOf": several}}}
        asked = {"type": "json_schema", "json_schema": {"schema": schema}}
        fields = sampling_fields({"max_tokens": 5, "response_format": asked}, 9)
        guide = fields["structured_outputs"]["json"]
        assert guide["properties"] == {name: {"allOf": [{"type": "string"}] * 17}}

    def test_a_stop_that_is_one_text_is_one_stop_sequence(self) -> None:
        assert sampling_fields({"max_tokens": 5, "stop": "END"}, 9)["stop"] == ["END"]

    @pytest.mark.parametrize(
        ("response_format", "guide"),
        [
            ({"type": "text"}, None),
            ({"type": "json_object"}, {"json_object": True}),
            (
                {"type": "json_schema", "json_schema": {"schema": {"type": "object"}}},
                {"json": {"type": "object", "x-guidance": GUIDANCE}},
            ),
        ],
    )
    def test_a_response_format_guides_the_decoding(self, response_format: dict[str, Any], guide: Any) -> None:
        fields = sampling_fields({"max_tokens": 5, "response_format": response_format}, 9)
        assert fields.get("structured_outputs") == guide

    def test_calls_that_must_be_made_guide_the_decoding_and_a_choice_does_not(self) -> None:
        params = {
            "max_tokens": 5,
            "tools": [{"name": "look", "input_schema": {}}],
            "response_format": {"type": "json_object"},
        }
        assert "structured_outputs" not in sampling_fields(params, 9, offer_of(params))
        forced = {**params, "tool_choice": {"type": "any"}}
        offer = offer_of(forced)
        assert offer is not None
        guide = sampling_fields(forced, 9, offer)["structured_outputs"]
        assert guide == {"json": {**offer.calls_schema(), "x-guidance": GUIDANCE}}
