"""The platform's documented rate limits of one endpoint: calls per 10 s, and calls at once."""

from collections import Counter

_WINDOW_S = 10.0
# Operation: (calls in a window, calls at once); None where no limit is documented.
LIMITS: dict[str, tuple[int, int | None]] = {
    "run": (1000, 200),
    "runsync": (2000, 400),
    "status": (2000, 400),
    "stream": (2000, 400),
    "openai": (2000, 400),
    "cancel": (100, 20),
    "purge-queue": (2, None),
    "requests": (10, None),
}


class RateLimits:
    """Counts calls; an operation that is not in LIMITS is never limited."""

    def __init__(self) -> None:
        self._window = 0
        self._calls: Counter[str] = Counter()
        self._running: Counter[str] = Counter()

    def enter(self, operation: str, now_s: float) -> bool:
        """Whether a call may begin; if so, `leave` must follow."""
        window = int(now_s // _WINDOW_S)
        if window != self._window:
            self._window = window
            self._calls.clear()
        in_window, at_once = LIMITS.get(operation, (None, None))
        if in_window is not None and self._calls[operation] >= in_window:
            return False
        if at_once is not None and self._running[operation] >= at_once:
            return False
        self._calls[operation] += 1
        self._running[operation] += 1
        return True

    def leave(self, operation: str) -> None:
        self._running[operation] -= 1
