"""Virtual time, and processes that end or freeze between two instructions: an event loop for the soak.

Every task belongs to a process, by a context variable that its children inherit. A killed process runs no further
callback, a frozen one runs them when it is thawed: exactly what SIGKILL and SIGSTOP do. Time passes only when nobody
can run, so hours take moments and the same seed gives the same run.
"""

import asyncio
import heapq
import selectors
from collections.abc import Callable, Coroutine
from contextlib import suppress
from contextvars import Context, ContextVar, copy_context
from typing import Any, TypeVar

T = TypeVar("T")


class Stuck(Exception):
    """Nothing is scheduled, and nobody can run any more."""


class Process:
    """One simulated process. What surrounds it sets what its end, a SIGTERM and a replacement mean."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.dead = False
        self.frozen = False
        self.held: list[asyncio.Handle] = []
        self.on_death: Callable[[], None] = lambda: None
        self.on_term: Callable[[], None] = self.kill
        self.on_replace: Callable[[], None] = lambda: None

    def kill(self) -> None:
        if not self.dead:
            self.dead = True
            self.held.clear()
            self.on_death()

    def thaw(self, loop: "VirtualLoop") -> None:
        self.frozen = False
        held, self.held = self.held, []
        loop.run_soon(held)

    def admits(self, handle: asyncio.Handle) -> bool:
        if self.dead:
            return False
        if self.frozen:
            self.held.append(handle)
        return not self.frozen


PROCESS: ContextVar[Process | None] = ContextVar("process", default=None)


def _admitted(context: Context, handle: asyncio.Handle) -> bool:
    process = context.get(PROCESS)
    return process is None or process.admits(handle)


class _Handle(asyncio.Handle):
    def _run(self) -> None:
        if _admitted(self._context, self):  # type: ignore[attr-defined]
            super()._run()


class _Timer(asyncio.TimerHandle):
    def _run(self) -> None:
        if _admitted(self._context, self):  # type: ignore[attr-defined]
            super()._run()


class _Clock(selectors.SelectSelector):
    """Waits by moving the time on."""

    now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise Stuck
        self.now_s += timeout
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """`failures` are exceptions that no code has caught."""

    def __init__(self) -> None:
        self._clock = _Clock()
        super().__init__(self._clock)
        self.failures: list[str] = []
        # Of dead processes too: one that is collected would run its `finally`.
        self._tasks: list[asyncio.Task[Any]] = []
        self.set_task_factory(self._make_task)
        self.set_exception_handler(self._note)

    def time(self) -> float:
        return self._clock.now_s

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        handle = _Handle(callback, args, self, copy_context() if context is None else context)
        self._ready.append(handle)  # type: ignore[attr-defined]
        return handle

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        timer = _Timer(when, callback, args, self, copy_context() if context is None else context)
        heapq.heappush(self._scheduled, timer)  # type: ignore[attr-defined]
        timer._scheduled = True  # type: ignore[attr-defined]
        return timer

    def run_in_executor(  # type: ignore[override]
        self, executor: object, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        """At once: threads would come in any order."""
        done: asyncio.Future[T] = self.create_future()
        try:
            done.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 - handed to whoever waits
            done.set_exception(error)
        return done

    def run_soon(self, handles: list[asyncio.Handle]) -> None:
        self._ready.extend(handles)  # type: ignore[attr-defined]

    def outside(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """A task of no process: what is on the wire or at the platform survives its sender."""
        return self.create_task(coroutine, context=Context())

    def inside(self, process: Process, coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        context = Context()
        context.run(PROCESS.set, process)
        return self.create_task(coroutine, context=context)

    def abandon(self) -> None:
        """Ends the loop with whatever is still pending: dead processes never finish."""
        while self._tasks:
            task = self._tasks.pop()
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            # Where it waits in its `finally`, it can't be closed.
            with suppress(RuntimeError):
                task.get_coro().close()
        self._ready.clear()  # type: ignore[attr-defined]
        self._scheduled.clear()  # type: ignore[attr-defined]
        self.close()

    def _make_task(
        self, loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any
    ) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.Task(coroutine, loop=self, **options)
        self._tasks.append(task)
        return task

    def _note(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        self.failures.append(f"{context['message']}: {error!r}")
