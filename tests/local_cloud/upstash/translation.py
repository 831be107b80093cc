"""What becomes of one command between the REST request and the engine: passed on, rewritten, or refused.

Also the place where commands are counted, as they would be billed: by name, a pipelined command as one.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from tests.local_cloud.upstash import acl
from tests.local_cloud.upstash.resp import Command, Reply, ReplyError
from tests.local_cloud.upstash.scripts import ScriptBook

_BLOCKING = "BLPOP BRPOP BRPOPLPUSH BLMOVE BLMPOP BZPOPMIN BZPOPMAX BZMPOP WAIT WAITAOF"
_TRANSACTION = "MULTI EXEC DISCARD WATCH UNWATCH"
_PUBSUB = "SUBSCRIBE PSUBSCRIBE SSUBSCRIBE UNSUBSCRIBE PUNSUBSCRIBE SUNSUBSCRIBE MONITOR"
_CONNECTION = "AUTH HELLO SELECT QUIT RESET CLIENT READONLY READWRITE ASKING"
_SERVER = (
    "SHUTDOWN CONFIG DEBUG MODULE SAVE BGSAVE BGREWRITEAOF MIGRATE CLUSTER FAILOVER "
    "REPLICAOF SLAVEOF REPLCONF SYNC PSYNC"
)
_REFUSED = frozenset(f"{_BLOCKING} {_TRANSACTION} {_PUBSUB} {_CONNECTION} {_SERVER}".split())
_HELP_URL = "https://upstash.com/docs/redis/overall/rediscompatibility"


@dataclass(frozen=True, slots=True)
class Translated:
    """The command for the engine, and what makes the client's answer of the engine's."""

    command: Command
    after: Callable[[Reply], Reply] | None = None

    def finish(self, reply: Reply) -> Reply:
        return self.after(reply) if self.after else reply


class Translator:
    """Translates commands. `forget_user` is called once the engine has changed or removed a user."""

    def __init__(self, forget_user: Callable[[str], None]) -> None:
        self._forget_user = forget_user
        self._scripts = ScriptBook()
        self.command_counts: Counter[str] = Counter()
        self.script_counts: Counter[str] = Counter()

    def translate(self, command: Command) -> Translated | ReplyError:
        if not command:
            return ReplyError("ERR empty command")
        name = _text(command[0]).upper()
        if name in _REFUSED or (name in ("XREAD", "XREADGROUP") and _blocks(command)):
            return ReplyError(f"ERR Command is not available: '{name}'. See {_HELP_URL} for details")
        self.command_counts[name] += 1
        if name.startswith("EVAL") and len(command) > 1:
            return Translated(self._run_script(name, command))
        if name == "SCRIPT" and len(command) > 2:
            return self._manage_scripts(command)
        if name == "ACL" and len(command) > 2:
            return self._manage_users(command)
        return Translated(command)

    def _run_script(self, name: str, command: Command) -> Command:
        """EVAL, EVALSHA and their read-only forms."""
        is_by_sha = name.startswith("EVALSHA")
        script = self._scripts.find(command[1]) if is_by_sha else self._scripts.admit(command[1])
        if script is None:
            return command
        if script.name is not None:
            self.script_counts[script.name] += 1
        return [command[0], script.engine_sha if is_by_sha else script.engine_source, *command[2:]]

    def _manage_scripts(self, command: Command) -> Translated:
        match _text(command[1]).upper():
            case "LOAD" if len(command) == 3:
                script = self._scripts.admit(command[2])
                return Translated(
                    [*command[:2], script.engine_source],
                    lambda reply: script.sha if isinstance(reply, bytes) else reply,
                )
            case "EXISTS":
                known = [self._scripts.find(sha) for sha in command[2:]]
                shas = [s.engine_sha if s else sha for s, sha in zip(known, command[2:], strict=True)]
                return Translated([*command[:2], *shas])
        return Translated(command)

    def _manage_users(self, command: Command) -> Translated | ReplyError:
        subcommand, user, rest = _text(command[1]).upper(), _text(command[2]), [_text(a) for a in command[3:]]
        match subcommand, rest:
            case "GENTOKEN", [] | [_]:
                # The engine's GENPASS, even if a password is given: it refuses a user who may not run ACL.
                return Translated([b"ACL", b"GENPASS"], lambda reply: _as_token(user, rest, reply))
            case "RESTTOKEN", [password]:
                return Translated(
                    [b"ACL", b"GETUSER", command[2]], lambda reply: acl.rest_token(user, password, reply)
                )
            case "SETUSER", rules if acl.foreign_passwords(user, rules):
                return ReplyError("ERR a password must be a token that ACL GENTOKEN made for this user")
            case "SETUSER", _:
                return Translated(command, lambda reply: self._forgetting([user], reply))
            case "DELUSER", others:
                return Translated(command, lambda reply: self._forgetting([user, *others], reply))
        return Translated(command)

    def _forgetting(self, users: list[str], reply: Reply) -> Reply:
        for user in users:
            self._forget_user(user)
        return reply


def _as_token(user: str, given_password: list[str], generated: Reply) -> Reply:
    if not isinstance(generated, bytes):
        return generated
    [password] = given_password or [_text(generated)]
    return acl.make_token(user, password).encode()


def _blocks(command: Command) -> bool:
    """Whether an XREAD or XREADGROUP has the option BLOCK, which comes before the streams' names."""
    for argument in command[1:]:
        word = argument.upper()
        if word in (b"BLOCK", b"STREAMS"):
            return word == b"BLOCK"
    return False


def _text(argument: bytes) -> str:
    return argument.decode("utf-8", "replace")
