"""JSON Schemas of callers, made safe to run: what may stand in one, and validators that neither fetch nor run away.

A schema comes from a caller and is applied to a model's text, so three things are bounded: references stay inside the
schema (nothing is ever fetched), a regular expression has a time limit, and so many references are followed for one
text at most, because alternatives that refer to themselves cost twice as much with each level.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import regex
from jsonschema import (
    Draft4Validator,
    Draft6Validator,
    Draft7Validator,
    Draft201909Validator,
    Draft202012Validator,
    FormatChecker,
)
from jsonschema.exceptions import SchemaError, ValidationError
from jsonschema.validators import extend
from referencing import Registry
from referencing.exceptions import Unresolvable
from referencing.jsonschema import specification_with

SCHEMA_MAX_CHARS = 100_000
REFERENCES_MAX = 20_000
PATTERN_LIMIT_S = 0.1
SHOWN_CHARS = 200
# Keywords that hold schemas by names of the caller's, which may be the names of other keywords.
NAMED_SCHEMAS = frozenset(
    {"$defs", "definitions", "dependencies", "dependentSchemas", "patternProperties", "properties"}
)

_DRAFTS = {
    str(draft.META_SCHEMA.get("$schema")).rstrip("#"): draft
    for draft in (
        Draft4Validator,
        Draft6Validator,
        Draft7Validator,
        Draft201909Validator,
        Draft202012Validator,
    )
}
_NEWEST = str(Draft202012Validator.META_SCHEMA["$schema"])


class BadSchema(ValueError):
    """The schema can't be used; the text says where in it, and why."""


class RanAway(Exception):
    """Checking a text against a schema took more than it may; the text says what did."""


def validator_of(schema: Mapping[str, Any]) -> Any:
    """A validator for one caller's schema; made once per schema, the latest ones are kept. Raises BadSchema."""
    try:
        # A number such as 1e999 was read as infinite, and can't be reckoned with.
        text = json.dumps(schema, sort_keys=True, allow_nan=False)
        if len(text) > SCHEMA_MAX_CHARS:
            raise BadSchema(f"at $: at most {SCHEMA_MAX_CHARS} characters")
        return _compile(text)
    except RecursionError:
        raise BadSchema("at $: nested too deep") from None
    except BadSchema:
        raise
    except ValueError as error:
        # A number that is none, or an `$id` that is no URI.
        raise BadSchema(f"at $: {error!s:.{SHOWN_CHARS}}") from None


def errors_in(validator: Any, value: Any) -> Iterator[ValidationError]:
    """What is wrong with a value. Raises RanAway; RecursionError where schema or value nest too deep."""
    errors: Iterator[ValidationError] = validator.evolve(format_checker=_Budget()).iter_errors(value)
    return errors


class _Budget(FormatChecker):  # type: ignore[misc]
    """The references that one check may still follow. jsonschema hands its format checker to every validator that it
    makes on the way, so this is where a check can keep something; no format is checked by it."""

    def __init__(self) -> None:
        super().__init__(())
        self.references = REFERENCES_MAX


def _is_regex(pattern: object) -> bool:
    return not isinstance(pattern, str) or regex.compile(pattern) is not None


_PATTERNS = FormatChecker(())
_PATTERNS.checks("regex", raises=regex.error)(_is_regex)


@lru_cache(maxsize=256)
def _compile(text: str) -> Any:
    if '"unevaluatedProperties"' in text and '"patternProperties"' in text:
        # jsonschema would run these patterns by itself, without a time limit.
        raise BadSchema("at $: unevaluatedProperties together with patternProperties is not supported")
    schema = json.loads(text)
    draft = _draft_of(schema.pop("$schema", _NEWEST))
    _check(draft, schema)
    _check_references(draft, schema)
    # An empty registry: the default one fetches what it does not know.
    return _bounded(draft)(schema, registry=Registry())


def _draft_of(name: Any) -> Any:
    draft = _DRAFTS.get(name.rstrip("#")) if isinstance(name, str) else None
    if draft is None:
        raise BadSchema(f"at $['$schema']: must be one of {', '.join(_DRAFTS)}")
    return draft


def _check(draft: Any, schema: Any, place: str = "$") -> None:
    try:
        draft.check_schema(schema, format_checker=_PATTERNS)
    except SchemaError as error:
        path = place + error.json_path[1:]
        raise BadSchema(f"at {path}: {error.message:.{SHOWN_CHARS}}") from None


def _check_references(draft: Any, schema: Any) -> None:
    """Every reference leads to a schema in here, and none back to itself before anything is checked."""
    specification = specification_with(draft.META_SCHEMA["$schema"])
    places = {id(node): place for place, node in _nodes(schema, "$")}
    root = specification.create_resource(schema)
    waiting = [(root, Registry().resolver_with_root(root))]
    seen: set[int] = set()
    while waiting:
        resource, resolver = waiting.pop()
        contents = resource.contents
        if not isinstance(contents, dict) or id(contents) in seen:
            continue
        seen.add(id(contents))
        place = places.get(id(contents), "$")
        if "$schema" in contents:
            raise BadSchema(f"at {place}['$schema']: only the whole schema may have one")
        inner = resolver.in_subresource(resource)
        waiting += [(each, inner) for each in resource.subresources()]
        for target, where in _targets(contents, inner, place):
            if id(target) not in places and not isinstance(target, bool):
                raise BadSchema(f"at {place}: a reference leads to what is no schema")
            # A target may lie where the draft expects no schema, so that nothing has looked at it yet.
            if id(target) not in seen:
                _check(draft, target, places.get(id(target), "$"))
            waiting.append((specification.create_resource(target), where))


def _targets(contents: Mapping[str, Any], resolver: Any, place: str) -> Iterator[tuple[Any, Any]]:
    """What the references of one schema lead to, and from where that is read."""
    for keyword in ("$ref", "$dynamicRef", "$recursiveRef"):
        reference = contents.get(keyword)
        if isinstance(reference, str):
            yield _follow(reference, resolver, f"{place}.{keyword}")
        elif reference is not None:
            # Draft 4 does not say so by itself.
            raise BadSchema(f"at {place}.{keyword}: must be text")


def _follow(reference: str, resolver: Any, place: str) -> tuple[Any, Any]:
    first, passed = reference, set()
    while True:
        try:
            found = resolver.lookup(reference)
        except (Unresolvable, ValueError, TypeError):
            # TypeError: it leads into a number.
            shown = f"{reference!r:.{SHOWN_CHARS}}"
            raise BadSchema(f"at {place}: {shown} is not in this schema, and nothing is fetched") from None
        target = found.contents
        if not isinstance(target, dict) or not isinstance(target.get("$ref"), str):
            return target, found.resolver
        if id(target) in passed:
            raise BadSchema(f"at {place}: {first!r:.{SHOWN_CHARS}} leads back to itself")
        passed.add(id(target))
        reference, resolver = target["$ref"], found.resolver


def _nodes(node: Any, place: str) -> Iterator[tuple[str, Any]]:
    """Every object in a schema with its place, as in `$.properties.name`."""
    if isinstance(node, dict):
        yield place, node
        for name, child in node.items():
            yield from _nodes(child, f"{place}.{name}")
    elif isinstance(node, list):
        for number, child in enumerate(node):
            yield from _nodes(child, f"{place}[{number}]")


@lru_cache(maxsize=len(_DRAFTS))
def _bounded(draft: Any) -> Any:
    """A draft's validator with our own keywords where its own would run without a bound."""
    own = {"pattern": _pattern, "patternProperties": _pattern_properties, "additionalProperties": _additional}
    counted = {
        keyword: _counted(draft.VALIDATORS[keyword])
        for keyword in ("$ref", "$dynamicRef", "$recursiveRef")
        if keyword in draft.VALIDATORS
    }
    return extend(draft, {**own, **counted})


def _counted(follow: Any) -> Any:
    def counting(validator: Any, reference: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
        validator.format_checker.references -= 1
        if validator.format_checker.references < 0:
            raise RanAway(f"more than {REFERENCES_MAX} references were followed")
        yield from follow(validator, reference, instance, schema)

    return counting


def _found(pattern: str, text: str) -> bool:
    try:
        return regex.search(pattern, text, timeout=PATTERN_LIMIT_S, concurrent=True) is not None
    except TimeoutError:
        raise RanAway(
            f"the pattern {pattern!r:.{SHOWN_CHARS}} took longer than {PATTERN_LIMIT_S:g} s"
        ) from None


def _pattern(validator: Any, pattern: str, instance: Any, schema: Any) -> Iterator[ValidationError]:
    if isinstance(instance, str) and not _found(pattern, instance):
        yield ValidationError("does not match")


def _pattern_properties(
    validator: Any, patterns: Mapping[str, Any], instance: Any, schema: Any
) -> Iterator[ValidationError]:
    if isinstance(instance, dict):
        for pattern, inner in patterns.items():
            for name, value in instance.items():
                if _found(pattern, name):
                    yield from validator.descend(value, inner, path=name, schema_path=pattern)


def _additional(validator: Any, allowed: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    if not isinstance(instance, dict):
        return
    known, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    for name, value in instance.items():
        if name in known or any(_found(pattern, name) for pattern in patterns):
            continue
        if allowed is False:
            yield ValidationError("not allowed", path=[name])
        else:
            yield from validator.descend(value, allowed, path=name)
