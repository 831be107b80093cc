"""Puts failpoints around the ports of this process, from outside: the product's classes are wrapped, not changed."""

import functools
import inspect
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Any

from tests.local_cloud.failpoints.acts import ACTS, Arguments
from tests.local_cloud.failpoints.moments import MOMENTS, Place
from tests.local_cloud.failpoints.table import FAILPOINTS

Fires = Callable[[str], bool]
Method = Callable[..., Awaitable[Any]]
# Each failpoint at a method, and its place there.
Struck = list[tuple[str, Place]]


def install(worker: str, fires: Fires) -> None:
    """Wraps every method at which a failpoint may strike this kind of worker."""
    by_method: dict[tuple[type, str], Struck] = defaultdict(list)
    for name, failpoint in FAILPOINTS.items():
        for place in MOMENTS[failpoint.moment].places:
            if worker in place.by:
                by_method[place.owner, place.method].append((name, place))
    for (owner, method), struck in by_method.items():
        setattr(owner, method, wrapped(getattr(owner, method), struck, fires))


def wrapped(method: Method, struck: Struck, fires: Fires) -> Method:
    signature = inspect.signature(method)

    async def strike(call: Arguments, *, after: bool) -> None:
        for name, place in struck:
            if place.after == after and place.when(call) and fires(name):
                await ACTS[FAILPOINTS[name].act](call)

    @functools.wraps(method)
    async def call(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        await strike(bound.arguments, after=False)
        result = await method(*bound.args, **bound.kwargs)
        await strike({**bound.arguments, "result": result}, after=True)
        return result

    return call
