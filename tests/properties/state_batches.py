"""The rules about whole batches, and about time."""

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from shared.adapters import keys
from shared.core.lifecycle import Event
from tests.contract.state import new_batch
from tests.properties.state_actions import StateActions, picks, repeats
from tests.properties.state_pair import Repeat, happened

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS

sizes = st.lists(st.integers(1, 4), min_size=1, max_size=3)
plans = st.one_of(
    st.builds(lambda shards: {"mistral": shards}, sizes),
    st.builds(lambda one, two: {"mistral": one, "llama-70b": two}, sizes, sizes),
    st.builds(lambda one, two: {"llama-70b": one, "mistral": two}, sizes, sizes),
)
ways_out = st.lists(st.sampled_from(["start", "start", "settle", "give back", "blame"]), max_size=4)


class BatchRules(StateActions):
    """What callers and the tick do to batches."""

    @precondition(lambda self: len(self.open_batches()) < 4)
    @rule(
        plan=plans,
        weight=st.sampled_from([0.25, 1.0, 4.0]),
        key=st.sampled_from([None, None, "k1", "k1", "k2"]),
        body=st.sampled_from(["a", "a", "b"]),
        expires_in_ms=st.sampled_from([5 * MINUTE_MS, HOUR_MS, 24 * HOUR_MS, 24 * HOUR_MS]),
        repeat=repeats,
    )
    def create(
        self,
        plan: dict[str, list[int]],
        weight: float,
        key: str | None,
        body: str,
        expires_in_ms: int,
        repeat: Repeat,
    ) -> None:
        number = len(self.nonces)
        batch = new_batch(
            plan,
            id=f"batch_{number:024x}",
            nonce=f"nonce{number}",
            weight=weight,
            idempotency_key=key,
            body_hash=body if key else None,
            expires_in_ms=expires_in_ms,
            retain_ms=HOUR_MS,
        )
        self.nonces[batch.id] = batch.nonce
        self.pair.batch_ids.append(batch.id)
        if key:
            self.pair.call(lambda ports: ports.batches.find_key(key, body))
        answer = self.pair.call(lambda ports: ports.batches.commit(batch), repeat=repeat)
        happened(f"commit: {answer.verdict}")
        if answer.verdict != "created":
            self.pair.batch_ids.remove(batch.id)

    @precondition(lambda self: len(self.open_batches()) > 1)
    @rule(pick=picks, afterwards=ways_out, repeat=repeats)
    def cancel(self, pick: int, afterwards: list[str], repeat: Repeat) -> None:
        batch_id = self.batch(pick)
        answer = self.pair.call(lambda ports: ports.batches.stop(batch_id, "canceled"), [Event.STOP], repeat)
        happened(f"stop: canceled {answer.verdict}")
        self.leave(batch_id, afterwards)

    @precondition(lambda self: len(self.open_batches()) > 1)
    @rule(
        waits=st.sampled_from([True, True, False]),
        afterwards=ways_out,
        lingers_ms=st.sampled_from([0, 0, HOUR_MS]),
        repeat=repeats,
    )
    def expire(self, afterwards: list[str], lingers_ms: int, repeat: Repeat, *, waits: bool) -> None:
        """The batch whose time comes first; and as long after that as it is kept."""
        [(expires_ms, batch_id), *_] = sorted(self.open_batches())
        if waits:
            self.pair.advance(max(0, expires_ms - self.redis.now_ms))
        answer = self.pair.call(lambda ports: ports.batches.stop(batch_id, "expired"), [Event.STOP], repeat)
        happened(f"stop: expired {answer.verdict}")
        self.leave(batch_id, afterwards)
        self.pair.advance(lingers_ms)

    @rule(pick=picks, repeat=repeats, is_cut_short=st.sampled_from([False, False, True]))
    def delete(self, pick: int, repeat: Repeat, *, is_cut_short: bool) -> None:
        ended = [id_ for id_, batch in self.pair.picture.batches.items() if batch.ended_ms]
        batch_id = ended[0] if ended and pick < 3 else self.batch(pick)
        marked = self.pair.call(lambda ports: ports.batches.delete(batch_id, "mark"), repeat=repeat)
        happened(f"delete: {marked.verdict}")
        if marked.verdict != "marked" or is_cut_short:
            return
        assert marked.nonce == self.nonces[batch_id]
        outputs = [name for name in self.redis.names() if name.startswith(f"payload:{marked.nonce}:out:")]
        self.redis.read([["DEL", name] for name in outputs])
        answer = self.pair.call(lambda ports: ports.batches.delete(batch_id, "finish"), repeat=repeat)
        happened(f"delete: {answer.verdict}")
        self.gone.append(batch_id)

    @rule(
        pick=picks,
        bodies=st.lists(st.sampled_from(["{}", "x"]), max_size=20),
        limit=st.integers(1, 4),
        force=st.booleans(),
    )
    def sweep(self, pick: int, bodies: list[str], limit: int, *, force: bool) -> None:
        """Whose work is then done, as far as it is a lease or an expiry; and a list of all batches."""
        self.redis.read([["RPUSH", keys.INBOXES[3], body] for body in bodies])
        self.pair.memory.batches.push(bodies)
        batch_id = self.batch(pick)
        swept = self.pair.call(lambda ports: ports.batches.sweep(batch_id, force=force))
        self.list_all(limit)
        if swept.work is None:
            return
        for lease in swept.work.leases:
            self.pair.call(lambda ports, lease=lease: ports.repairs.inspect(lease))  # type: ignore[misc]
        for expired in swept.work.expired:
            answer = self.pair.call(
                lambda ports, expired=expired: ports.batches.stop(expired, "expired"),  # type: ignore[misc]
                [Event.STOP],
            )
            happened(f"stop: expired {answer.verdict}")

    @rule(by_ms=st.sampled_from([1000, 16_000, 16_000, 31_000, 31_000, 11 * MINUTE_MS]))
    def wait(self, by_ms: int) -> None:
        self.pair.advance(by_ms)
