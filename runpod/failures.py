"""What can stop a deployment. Messages are for the person at the terminal; none holds a secret."""

from __future__ import annotations


class DeployError(Exception):
    """Root of every error the deploy tool raises on purpose."""


class MissingSettings(DeployError):
    """Variables or options that are needed and were not given, or whose values the service would refuse."""


class RefusedValue(DeployError):
    """A value that RunPod would refuse, found before any call; the message names the field and its limit."""


class Ambiguous(DeployError):
    """The account does not match the definitions in a way that only its owner can settle."""


class PlatformError(DeployError):
    """RunPod, Upstash or QStash refused a call or did not answer it. `status` is None without an answer."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status

    @property
    def outcome_unknown(self) -> bool:
        """Whether the call may have been carried out all the same."""
        return self.status is None or self.status >= 500


class NotReady(DeployError):
    """An endpoint did not become ready in time."""
