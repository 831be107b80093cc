"""Structured output: what an answer must look like (`params.response_format`), and whether it does.

An engine that can guides its decoding by the same format; this check always follows, because an answer may be cut, and
an engine may not know every keyword.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from jsonschema.exceptions import best_match

from shared.core.schemas import SHOWN_CHARS, BadSchema, RanAway, errors_in, validator_of
from shared.errors import OutputInvalid, RequestRejected

SCHEMA_FIELD = "params.response_format.json_schema.schema"
# The tries of `on_invalid: "retry"`, the first one included.
TRIES = 3
SEEDS = 2**63


def schema_format(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The `response_format` that asks for a schema."""
    return {"type": "json_schema", "json_schema": {"schema": schema}}


def schema_fault(schema: Mapping[str, Any]) -> str | None:
    """Where and why a schema can't be used, as in `at $.properties.age.type: ...`; None where it can."""
    try:
        validator_of(schema)
    except BadSchema as fault:
        return str(fault)
    return None


def tries(params: Mapping[str, Any]) -> int:
    """How often a request may be asked for an answer that is valid."""
    return TRIES if params.get("on_invalid") == "retry" else 1


def reseeded(params: Mapping[str, Any], number: int, fresh_seed: int) -> dict[str, Any]:
    """The parameters of try number `number` (the first is 0): another seed each time, counted on from the request's own
    where it has one."""
    seed = params.get("seed")
    if number == 0:
        return dict(params)
    return {**params, "seed": (seed + number) % SEEDS if isinstance(seed, int) else fresh_seed}


@dataclass(frozen=True)
class Expectation:
    """What the answer to one request must be: JSON that `validator` accepts; without one, any object."""

    validator: Any | None

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> Expectation | None:
        """None where any text will do. Raises RequestRejected for a schema that can't be used, naming the place."""
        wanted = params.get("response_format") or {"type": "text"}
        if wanted["type"] == "text":
            return None
        if wanted["type"] == "json_object":
            return cls(None)
        try:
            return cls(validator_of(wanted["json_schema"]["schema"]))
        except BadSchema as fault:
            raise RequestRejected(f"{SCHEMA_FIELD} {fault}", param=SCHEMA_FIELD) from None

    def check(self, text: str, cut_at: int | None = None) -> None:
        """Raises OutputInvalid with the path that fails. Of the text only names of properties are repeated, so that an
        error holds no completion. `cut_at`: the max_tokens at which the answer was cut."""
        value = _parse(text, cut_at)
        if self.validator is None:
            if not isinstance(value, dict):
                _fail("$", "must be an object")
            return
        try:
            error = best_match(errors_in(self.validator, value))
        except RanAway as reason:
            _fail("$", f"the check was given up: {reason}")
        except (RecursionError, ArithmeticError):
            _fail("$", "schema and answer can't be compared: nested too deep, or a number out of range")
        if error is not None:
            _fail(error.json_path, _demand(error.validator, error.validator_value, error.message))


def _parse(text: str, cut_at: int | None) -> Any:
    try:
        return json.loads(text, parse_constant=_no_json)
    except RecursionError:
        _fail("$", "nested too deep")
    except ValueError as error:
        if cut_at is not None:
            _fail("$", f"the answer was cut at max_tokens={cut_at}, before the end of its JSON")
        where = f", at character {error.pos}" if isinstance(error, json.JSONDecodeError) else ""
        _fail("$", f"not JSON{where}")


def _no_json(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _demand(keyword: str | None, value: Any, message: str) -> str:
    """What the schema asks for there."""
    if keyword is None:
        return "nothing is allowed here"
    if keyword == "required":
        # jsonschema's own words name the property, and nothing of the answer.
        return message[:SHOWN_CHARS]
    return f"must meet {json.dumps({keyword: value}):.{SHOWN_CHARS}}"


def _fail(path: str, reason: str) -> NoReturn:
    raise OutputInvalid(f"Output validation failed at {path:.{SHOWN_CHARS}}: {reason}")
