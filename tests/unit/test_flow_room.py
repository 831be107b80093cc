"""Who may be in the engine: many in company, one alone, in the order in which they came."""

import asyncio
from collections.abc import Callable

import pytest

from shared.flow.room import Room

TURNS = 5


class Guests:
    """Each enters as a task of its own; `inside` are those let in, in that order."""

    def __init__(self) -> None:
        self.room = Room()
        self.inside: list[str] = []
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def come(self, name: str, *, alone: bool = False) -> None:
        async def enter() -> None:
            await self.room.enter(alone=alone)
            self.inside.append(name)

        self.tasks[name] = asyncio.create_task(enter())
        await settled()

    async def go(self, *names: str) -> None:
        for name in names:
            self.inside.remove(name)
            self.room.leave()
        await settled()

    async def give_up(self, name: str) -> None:
        self.tasks[name].cancel()
        with pytest.raises(asyncio.CancelledError):
            await self.tasks[name]
        await settled()


async def settled() -> None:
    """Whoever can go on has gone on."""
    for _ in range(TURNS):
        await asyncio.sleep(0)


@pytest.fixture
def guests() -> Guests:
    return Guests()


async def test_company_enters_at_once(guests: Guests) -> None:
    await guests.come("a")
    await guests.come("b")
    assert guests.inside == ["a", "b"]


async def test_who_must_be_alone_enters_an_empty_room_at_once(guests: Guests) -> None:
    await guests.come("suspect", alone=True)
    assert guests.inside == ["suspect"]


async def test_who_must_be_alone_waits_for_the_last_one_inside(guests: Guests) -> None:
    await guests.come("a")
    await guests.come("b")
    await guests.come("suspect", alone=True)
    await guests.go("a")
    assert guests.inside == ["b"]
    await guests.go("b")
    assert guests.inside == ["suspect"]


@pytest.mark.parametrize("alone", [False, True])
async def test_nobody_enters_beside_one_who_is_alone(guests: Guests, alone: bool) -> None:
    await guests.come("suspect", alone=True)
    await guests.come("next", alone=alone)
    assert guests.inside == ["suspect"]
    await guests.go("suspect")
    assert guests.inside == ["next"]


async def test_company_that_comes_after_one_who_waits_to_be_alone_waits(guests: Guests) -> None:
    await guests.come("a")
    await guests.come("suspect", alone=True)
    await guests.come("b")
    assert guests.inside == ["a"]
    await guests.go("a")
    assert guests.inside == ["suspect"]
    await guests.go("suspect")
    assert guests.inside == ["b"]


async def test_all_enter_in_the_order_in_which_they_came(guests: Guests) -> None:
    await guests.come("s1", alone=True)
    await guests.come("s2", alone=True)
    await guests.come("a")
    await guests.come("b")
    await guests.come("s3", alone=True)
    order = []
    for together in (["s1"], ["s2"], ["a", "b"], ["s3"]):
        assert guests.inside == together
        order += together
        await guests.go(*together)
    assert (order, guests.inside) == (["s1", "s2", "a", "b", "s3"], [])


async def test_one_who_gives_up_waiting_holds_up_nobody(guests: Guests) -> None:
    await guests.come("a")
    await guests.come("suspect", alone=True)
    await guests.come("b")
    await guests.give_up("suspect")
    assert guests.inside == ["a", "b"]


async def test_one_who_gives_up_at_the_moment_of_being_let_in_takes_no_place(guests: Guests) -> None:
    await guests.come("s1", alone=True)
    await guests.come("s2", alone=True)
    await guests.come("b")
    guests.room.leave()  # lets s2 in, which does not know yet
    await guests.give_up("s2")
    assert guests.inside == ["s1", "b"]


def give_up_first(guests: Guests) -> None:
    guests.tasks["s2"].cancel()
    guests.room.leave()


def leave_first(guests: Guests) -> None:
    guests.room.leave()
    guests.tasks["s2"].cancel()


@pytest.mark.parametrize("steps", [give_up_first, leave_first])
async def test_after_one_who_gave_up_the_room_is_whole(
    guests: Guests, steps: Callable[[Guests], None]
) -> None:
    await guests.come("s1", alone=True)
    await guests.come("s2", alone=True)
    steps(guests)
    await settled()
    guests.inside.clear()
    for name in ("s3", "s4"):
        await guests.come(name, alone=True)
        assert guests.inside == [name]
        await guests.go(name)
