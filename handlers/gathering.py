"""A stream of the engine in fewer pieces. Each piece that a handler yields is one HTTP request of the SDK, so one for
every token would keep the worker busy with nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator

# The platform takes 1 MB; written as JSON, a piece can grow to three times its size.
PIECE_BYTES = 256 * 1024
END_OF_EVENT = b"\n\n"


def pauses_s() -> Iterator[float]:
    """Seconds to gather after each piece: the first tokens show at once, a long answer takes four requests a second."""
    pause_s = 0.02
    while True:
        yield pause_s
        pause_s = min(1.5 * pause_s, 0.25)


async def gathered(
    chunks: AsyncGenerator[bytes, None], pauses: Iterator[float] | None = None
) -> AsyncGenerator[bytes, None]:
    """The same bytes: the first events at once, then what has arrived since; a piece ends where an event ends.

    What `chunks` raises is raised behind the last piece. Ending early ends the reading of `chunks`.
    """
    pauses = pauses or pauses_s()
    arrived = bytearray()
    news = asyncio.Event()

    async def read() -> None:
        try:
            async for chunk in chunks:
                arrived.extend(chunk)
                news.set()
        finally:
            news.set()

    reading = asyncio.create_task(read())
    try:
        while arrived or not reading.done():
            await news.wait()
            news.clear()
            while piece := _take(arrived, rest=reading.done()):
                yield piece
                await asyncio.wait({reading}, timeout=next(pauses))
        await reading
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


def _take(arrived: bytearray, *, rest: bool) -> bytes:
    """Cuts the whole events off, as many as one piece may hold; with `rest`, a last one that has no end too."""
    end = arrived.rfind(END_OF_EVENT, 0, PIECE_BYTES)
    if end < 0:
        end = arrived.find(END_OF_EVENT)
    size = end + len(END_OF_EVENT) if end >= 0 else len(arrived) if rest else 0
    piece = bytes(arrived[:size])
    del arrived[:size]
    return piece
