"""The webhooks' token: an Upstash ACL user that may append to the eight inboxes and do nothing else.

RunPod posts a job's end to a URL that holds this token, so it shows in logs; that is why it can do so little.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from failures import PlatformError
from http_calls import Http, json_object

from shared.adapters.keys import INBOXES

USER = "inbox"
# By name: whatever else began with `inbox:` would be a list that nobody drains.
KEYS = tuple(f"~{inbox}" for inbox in INBOXES)
RULES = (*KEYS, "+rpush")
RIGHTS = f"{USER}: {KEYS[0]} .. {KEYS[-1]} +rpush, for the webhooks"


class Upstash:
    """The database's REST API. `connect` makes a client for a token; `admin_token` may do everything."""

    def __init__(self, admin_token: str, connect: Callable[[str], Http]) -> None:
        self._connect = connect
        self._admin = connect(admin_token)

    def working(self, tokens: Sequence[str]) -> str:
        """The first of `tokens` that works; empty if none does, or if the user may do more than it should."""
        return next((token for token in tokens if self._works(token)), "") if self._is_narrow() else ""

    def new_token(self) -> str:
        """Gives the user a new token; the old one stops at once. Repeating it is harmless."""
        token = str(self._run("ACL", "GENTOKEN", USER))
        self._run("ACL", "SETUSER", USER, "reset", "on", f">{token}", *RULES)
        return token

    def _works(self, token: str) -> bool:
        """Whether `token` may append to an inbox and may not read one. Changes nothing: an RPUSH without a value is
        refused for that alone, while an unknown token is 401 and a right that is lacking NOPERM."""
        probe = self._connect(token)
        push = _refusal(probe, ["RPUSH", INBOXES[0]])
        read = _refusal(probe, ["LLEN", INBOXES[0]])
        may_push = push is not None and push.status == 400 and "NOPERM" not in str(push)
        return may_push and read is not None and "NOPERM" in str(read)

    def _is_narrow(self) -> bool:
        """Whether the user's keys are the inboxes; True where the database does not tell."""
        try:
            told = self._run("ACL", "GETUSER", USER)
        except PlatformError as error:
            if error.outcome_unknown:
                raise
            return True
        fields = dict(zip(told[::2], told[1::2], strict=False)) if isinstance(told, list) else {}
        keys = fields.get("keys")
        return not isinstance(keys, str) or set(keys.split()) == set(KEYS)

    def _run(self, *command: str) -> object:
        return json_object(self._admin.send("POST", "/", list(command)), "Upstash").get("result")


def _refusal(http: Http, command: list[str]) -> PlatformError | None:
    """Why Upstash did not run a command; None if it ran it. Raises PlatformError if it does not answer."""
    try:
        http.send("POST", "/", command)
    except PlatformError as error:
        if error.outcome_unknown:
            raise
        return error
    return None
