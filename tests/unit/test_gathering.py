"""A stream in fewer pieces: nothing is lost, nothing is cut inside an event, and nobody waits for a full piece."""

import asyncio
from collections.abc import AsyncGenerator, Iterable
from itertools import pairwise, repeat, takewhile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.gathering import END_OF_EVENT, PIECE_BYTES, gathered, pauses_s
from shared.errors import EngineDead


async def source(parts: Iterable[bytes | asyncio.Event]) -> AsyncGenerator[bytes, None]:
    for part in parts:
        if isinstance(part, asyncio.Event):
            await part.wait()
        else:
            yield part


async def collect(parts: Iterable[bytes | asyncio.Event]) -> list[bytes]:
    return [piece async for piece in gathered(source(parts), repeat(0.0))]


@given(st.lists(st.binary(min_size=1, max_size=5).map(lambda part: part.replace(b"x", b"\n\n")), max_size=20))
def test_all_bytes_come_out_in_order_and_pieces_end_where_events_end(parts: list[bytes]) -> None:
    pieces = asyncio.run(collect(parts))
    assert b"".join(pieces) == b"".join(parts)
    assert all(pieces)
    assert all(piece.endswith(END_OF_EVENT) for piece in pieces[:-1])


async def test_what_arrives_while_a_piece_is_sent_goes_with_the_next_one() -> None:
    events = [b"data: %d\n\n" % n for n in range(1000)]
    gate = asyncio.Event()
    pieces = gathered(source([events[0], gate, *events[1:]]), repeat(0.0))
    assert await anext(pieces) == events[0]
    gate.set()
    for _ in range(5):
        await asyncio.sleep(0)
    assert [piece async for piece in pieces] == [b"".join(events[1:])]


async def test_half_an_event_waits_for_its_other_half() -> None:
    gate = asyncio.Event()
    pieces = gathered(source([b"data: 1\n\nda", gate, b"ta: 2\n\n"]), repeat(0.0))
    assert await anext(pieces) == b"data: 1\n\n"
    gate.set()
    assert await anext(pieces) == b"data: 2\n\n"


async def test_a_piece_stays_under_its_limit_unless_one_event_is_larger() -> None:
    event, large = b"x" * 1000 + END_OF_EVENT, b"y" * (2 * PIECE_BYTES) + END_OF_EVENT
    pieces = await collect([event * 1000 + large + event])
    assert b"".join(pieces) == event * 1000 + large + event
    assert [len(piece) for piece in pieces if len(piece) > PIECE_BYTES] == [len(large)]


async def test_no_pause_delays_the_end() -> None:
    pieces = gathered(source([b"a\n\n"]), repeat(60.0))
    assert await asyncio.wait_for(_all(pieces), 30) == [b"a\n\n"]


async def test_what_the_stream_raises_comes_behind_its_last_piece() -> None:
    async def broken() -> AsyncGenerator[bytes, None]:
        yield b"a\n\n"
        raise EngineDead("it died")

    pieces = gathered(broken(), repeat(0.0))
    assert await anext(pieces) == b"a\n\n"
    with pytest.raises(EngineDead):
        await anext(pieces)


def test_the_pauses_grow_to_a_quarter_of_a_second() -> None:
    pauses = list(takewhile(lambda pause_s: pause_s < 0.25, pauses_s()))
    assert pauses[0] <= 0.02
    assert all(pause_s < later_s for pause_s, later_s in pairwise(pauses))
    assert len(pauses) < 10


async def _all(pieces: AsyncGenerator[bytes, None]) -> list[bytes]:
    return [piece async for piece in pieces]
