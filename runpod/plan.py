"""What would be created, changed or left: the definitions against the account. Pure but for reading the account."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from account import Account, Json, jobs_url
from definitions import Definition, Deployment
from endpoint_body import EndpointBody, checked_body
from failures import Ambiguous, MissingSettings
from service_env import HIDDEN, REGISTRY_ID, UNKNOWN_URL, WEBHOOK_TOKEN, is_secret, service_env

# Stands in a plan for an id or a token that only a create will give.
NEW = "(new)"
# RunPod gives these to new workers only.
REACHES_NEW_WORKERS = frozenset({"env", "image", "disk", "gpu", "cpu", "networkVolumes"})


@dataclass(frozen=True)
class Order:
    """What the person at the terminal asked for. `only`: endpoints to touch; `data_center`: None for the volume's own
    or the definition's; `image_prefix`: registry with a slash."""

    deployment: Deployment
    environment: Mapping[str, str]
    image_prefix: str
    tag: str
    data_center: str | None = None
    only: frozenset[str] = frozenset()

    def touches(self, endpoint: str) -> bool:
        return not self.only or endpoint in self.only

    def needs_volume(self) -> bool:
        return any(d.volume and self.touches(name) for name, d in self.deployment.endpoints.items())


@dataclass(frozen=True)
class Step:
    """One thing and what becomes of it. `request`: the body of the POST or PATCH; `before`: a changed field's present
    value; `held`: created without workers, because they would start before their settings are complete."""

    verb: Literal["create", "change", "leave"]
    kind: Literal["volume", "endpoint"]
    name: str
    request: Json = field(default_factory=dict)
    before: Json = field(default_factory=dict)
    held: bool = False


@dataclass(frozen=True)
class State:
    """The account as found: endpoints by short name, and the volume. `webhook_token`: the one to hand out."""

    endpoints: Mapping[str, Json | None]
    volume: Json | None
    webhook_token: str = ""

    def base_urls(self) -> dict[str, str]:
        return {name: jobs_url(found) for name, found in self.endpoints.items() if found}

    def secrets(self) -> set[str]:
        """The values of the secret variables that the endpoints have now."""
        envs = [(found or {}).get("env") or {} for found in self.endpoints.values()]
        return {value for env in envs for name, value in env.items() if is_secret(name)}

    def known_tokens(self, environment: Mapping[str, str]) -> list[str]:
        """The webhook tokens that are set somewhere, best first; whether one still works, Upstash knows."""
        known = [environment.get(WEBHOOK_TOKEN)]
        known += [((found or {}).get("env") or {}).get(WEBHOOK_TOKEN) for found in self.endpoints.values()]
        return list(dict.fromkeys(token for token in known if token))


def read_state(account: Account, order: Order) -> State:
    """Raises Ambiguous for what only the account's owner can settle."""
    endpoints = {
        name: account.endpoint(definition.body["name"])
        for name, definition in order.deployment.endpoints.items()
    }
    for name, found in endpoints.items():
        if found and ("cpu" in order.deployment.endpoints[name].body) != bool(found.get("cpu")):
            raise Ambiguous(f"{found['name']} can't change between GPU and CPU: delete it first")
    return State(endpoints, account.volume(order.deployment.volume.name))


def data_center(order: Order, state: State) -> str:
    """Where the volume is, or will be."""
    found = (state.volume or {}).get("dataCenter")
    return str(order.data_center or found or order.deployment.volume.data_center)


def volume_step(order: Order, state: State) -> Step:
    wanted, found = order.deployment.volume, state.volume
    if not order.needs_volume():
        return Step("leave", "volume", wanted.name)
    if found is None:
        request = {"name": wanted.name, "size": wanted.size, "dataCenter": data_center(order, state)}
        return Step("create", "volume", wanted.name, request)
    if order.data_center not in (None, found["dataCenter"]):
        raise Ambiguous(
            f"the volume {wanted.name} is in {found['dataCenter']} and can't move to {order.data_center}: "
            "delete it (and the models on it) first, or leave --data-center out"
        )
    if found["size"] < wanted.size:
        return Step("change", "volume", wanted.name, {"size": wanted.size}, {"size": found["size"]})
    return Step("leave", "volume", wanted.name)


def endpoint_steps(order: Order, state: State) -> list[Step]:
    """One step for each endpoint in the order, in the order of the definitions. Every body is checked first, so that
    RefusedValue is raised before anything is sent."""
    urls = state.base_urls()
    names = [name for name in order.deployment.endpoints if order.touches(name)]
    unknown = [
        name for name, d in order.deployment.endpoints.items() if d.base_url_variable and name not in urls
    ]
    if absent := [name for name in unknown if name not in names]:
        raise MissingSettings(f"{', '.join(absent)} must exist first: its address is a setting of the others")
    expected = urls | dict.fromkeys(unknown, UNKNOWN_URL + NEW)
    return [_endpoint_step(order, state, name, expected, held=bool(unknown)) for name in names]


def _endpoint_step(order: Order, state: State, name: str, urls: Mapping[str, str], *, held: bool) -> Step:
    definition = order.deployment.endpoints[name]
    body = endpoint_body(order, state, definition, urls).request()
    found = state.endpoints[name]
    if found is None:
        # An endpoint whose address others wait for comes first, and then waits for theirs.
        return Step(
            "create", "endpoint", body["name"], body, held=held and definition.base_url_variable is not None
        )
    changes = differences(body, found)
    before = {field_name: found.get(field_name) for field_name in changes}
    return Step("change" if changes else "leave", "endpoint", body["name"], changes, before)


def endpoint_body(
    order: Order, state: State, definition: Definition, urls: Mapping[str, str]
) -> EndpointBody:
    """The whole body of an endpoint. Raises RefusedValue."""
    fields = dict(definition.body)
    fields["image"] = f"{order.image_prefix}{definition.image}:{order.tag or 'TAG'}"
    fields["registry"] = order.environment.get(REGISTRY_ID) or None
    env = service_env(order.environment, order.deployment, urls, state.webhook_token)
    env |= {name: value for name in definition.secrets if (value := order.environment.get(name))}
    fields["env"] = env | definition.body.get("env", {})
    if definition.volume:
        volume_id = (state.volume or {}).get("id", NEW)
        fields |= {"networkVolumes": [volume_id], "dataCenterIds": [data_center(order, state)]}
    return checked_body(definition.body["name"], fields)


def differences(wanted: Json, found: Json) -> Json:
    """The fields of `wanted` that `found` has otherwise: the body of a PATCH. What the definitions don't name is left
    as it is, except in `env`, which RunPod replaces as a whole."""
    skipped = ("name", "type")
    return {
        name: value
        for name, value in wanted.items()
        if name not in skipped and not _same(name, value, found.get(name))
    }


def _same(name: str, wanted: Any, found: Any) -> bool:
    if name == "env":
        return bool(wanted == (found or {}))
    if name in ("networkVolumes", "dataCenterIds"):
        return set(wanted) == set(found or ()) or (name == "dataCenterIds" and not wanted)
    if name == "cpu":
        kinds = [{key: item.get(key) for key in ("id", "vcpuCount")} for item in found or []]
        return bool(wanted == kinds)
    if isinstance(wanted, dict):
        return all(
            (found or {}).get(key, [] if value == [] else None) == value for key, value in wanted.items()
        )
    return bool(wanted == found)


def without_workers(body: Json) -> Json:
    """The body of a held endpoint: it exists and has an id, and starts nothing."""
    return {**body, "workers": {**body["workers"], "min": 0, "max": 0}}


def masked(request: Json) -> Json:
    """The request with the values of secret variables hidden."""
    env = {name: HIDDEN if is_secret(name) else value for name, value in request.get("env", {}).items()}
    return {**request, "env": env} if "env" in request else request


def describe(step: Step) -> list[str]:
    """A step as lines for a person. A create shows each field as `field: JSON`, as it will be sent."""
    lines = [f"{step.verb:<7} {step.kind:<9} {step.name}"]
    if step.verb == "create":
        lines += [f"          {name}: {json.dumps(value)}" for name, value in masked(step.request).items()]
        if step.held:
            lines.append("          (created with 0 workers, which start once all addresses are known)")
        return lines
    for name, value in step.request.items():
        if name == "env":
            lines.append(f"          env: {_env_changes(step.before.get('env') or {}, value)}")
        else:
            lines.append(f"          {name}: {json.dumps(step.before.get(name))} -> {json.dumps(value)}")
    if REACHES_NEW_WORKERS & step.request.keys():
        lines.append("          (new workers only: live ones keep what they have until RunPod replaces them)")
    return lines


def _env_changes(before: Mapping[str, str], after: Mapping[str, str]) -> str:
    """Names only: + added, ~ changed, - removed."""
    marks = [f"+{name}" for name in after if name not in before]
    marks += [f"~{name}" for name in after if name in before and before[name] != after[name]]
    marks += [f"-{name}" for name in before if name not in after]
    return ", ".join(sorted(marks, key=lambda mark: mark[1:]))
