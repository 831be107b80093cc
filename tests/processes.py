"""Processes that a test looks at from outside."""

import psutil


def has_ended(process: psutil.Process) -> bool:
    """Also where its parent has not looked yet: what is left of it then runs no more."""
    try:
        return not process.is_running() or bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True
