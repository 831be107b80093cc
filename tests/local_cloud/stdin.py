"""The end of standard input is the end of the parent, however it ended."""

import asyncio
import os
import threading


def watch_stdin(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    """Sets `stop` once standard input ends."""

    def watch() -> None:
        # os.read, not sys.stdin: a thread blocked in the latter breaks the interpreter's exit.
        while os.read(0, 4096):
            pass
        loop.call_soon_threadsafe(stop.set)

    threading.Thread(target=watch, daemon=True).start()
