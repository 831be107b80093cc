"""REST tokens of ACL users, and the ACL subcommands that only Upstash has.

A token made here is the user's password in the engine and says whose it is, so nothing about it needs to be
stored: the engine itself decides whether it is (still) good.
"""

import base64
import binascii
import hashlib

from tests.local_cloud.upstash.resp import Reply, ReplyError

_PREFIX = "LOCAL"  # tells a token from any other base64 text


def make_token(user: str, password: str) -> str:
    """A URL-safe token of the user, derived from a password."""
    packed = f"{user} {password}".encode()
    return _PREFIX + base64.urlsafe_b64encode(packed).decode("ascii").rstrip("=")


def user_of_token(token: str) -> str | None:
    """The user a token names (not a proof of anything), or None if it is not such a token."""
    packed = token.removeprefix(_PREFIX)
    if packed == token or not token.isascii():
        return None
    padding = "=" * (-len(packed) % 4)
    try:
        user, _, password = base64.urlsafe_b64decode(packed + padding).decode().partition(" ")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return user if user and password else None


def token_from_password(user: str, password: str) -> str:
    """The token for a user's password, which may be given as the whole token or as what it was made from."""
    return password if user_of_token(password) == user else make_token(user, password)


def foreign_passwords(user: str, rules: list[str]) -> bool:
    """Whether the rules of an ACL SETUSER set a password that ACL GENTOKEN did not make for this user."""
    return any(rule.startswith(">") and user_of_token(rule[1:]) != user for rule in rules)


def rest_token(user: str, password: str, account: Reply) -> Reply:
    """The answer to ACL RESTTOKEN, given the engine's answer to ACL GETUSER for this user."""
    if isinstance(account, ReplyError):
        return account
    token = token_from_password(user, password)
    digest = hashlib.sha256(token.encode()).hexdigest().encode()
    if isinstance(account, list):
        fields = dict(zip(map(bytes_of, account[::2]), account[1::2], strict=True))
        passwords = fields.get(b"passwords")
        if isinstance(passwords, list) and digest in passwords:
            return token.encode()
    return ReplyError(f'ERR Wrong password or user "{user}" does not exist')


def bytes_of(reply: Reply) -> bytes:
    return reply if isinstance(reply, bytes) else b""
