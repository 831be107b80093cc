"""Carrying a plan out, in the one order that works: volume, token, model endpoints, then what needs their addresses.

Every step asks the account first, so an interrupted run is finished by the next one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from account import RunpodAccount
from inbox_token import Upstash
from plan import Order, State, Step, endpoint_steps, volume_step, without_workers


@dataclass(frozen=True)
class Rollout:
    """`say` prints one line; `hide` keeps a secret out of all lines to come."""

    order: Order
    account: RunpodAccount
    upstash: Upstash
    say: Callable[[str], None]
    hide: Callable[[str], None]

    def apply(self, state: State) -> State:
        """Brings the account to the definitions; the state it is then in. Without a webhook token in `state` a new
        one is made."""
        state = self._volume(state)
        if not state.webhook_token:
            state = self._new_token(state)
        for step in endpoint_steps(self.order, state):
            if step.verb == "create" and step.held:
                state = self._created(state, replace(step, request=without_workers(step.request)))
        for step in endpoint_steps(self.order, state):
            state = self._endpoint(state, step)
        return state

    def _volume(self, state: State) -> State:
        step = volume_step(self.order, state)
        if step.verb == "leave":
            return state
        if step.verb == "create":
            volume = self.account.create_volume(step.request)
        else:
            volume = self.account.grow_volume(str((state.volume or {})["id"]), step.request["size"])
        self.say(f"{step.verb}d volume {step.name} ({volume['id']})")
        return replace(state, volume=volume)

    def _new_token(self, state: State) -> State:
        token = self.upstash.new_token()
        self.hide(token)
        self.say("created the webhooks' token")
        return replace(state, webhook_token=token)

    def _endpoint(self, state: State, step: Step) -> State:
        if step.verb == "create":
            return self._created(state, step)
        if step.verb == "change":
            name = self._short_name(step)
            found = state.endpoints[name] or {}
            changed = self.account.change_endpoint(str(found["id"]), step.request)
            self.say(f"changed endpoint {step.name}: {', '.join(step.request)}")
            return replace(state, endpoints={**state.endpoints, name: {**found, **changed}})
        return state

    def _created(self, state: State, step: Step) -> State:
        created = self.account.create_endpoint(step.request)
        self.say(f"created endpoint {step.name} ({created['id']})")
        return replace(state, endpoints={**state.endpoints, self._short_name(step): created})

    def _short_name(self, step: Step) -> str:
        bodies = {d.body["name"]: name for name, d in self.order.deployment.endpoints.items()}
        return bodies[step.name]
