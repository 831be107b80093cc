"""The 10 MB that one request may carry, and one command may answer."""

from tests.local_cloud.upstash.resp import Reply, ReplyError

MAX_REQUEST_BYTES = 10 * 1024 * 1024
_HELP_URL = "https://upstash.com/docs/redis/troubleshooting/max_request_size_exceeded"


def oversized(size_bytes: int) -> ReplyError:
    return ReplyError(
        f"ERR max request size exceeded. Limit: {MAX_REQUEST_BYTES} bytes, Actual: {size_bytes} bytes. "
        f"See {_HELP_URL} for details"
    )


def refuse_oversized(reply: Reply, size_bytes: int) -> Reply:
    """The reply, or the error that takes its place if it is too large to be handed out."""
    return oversized(size_bytes) if size_bytes > MAX_REQUEST_BYTES else reply
