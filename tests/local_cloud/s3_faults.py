"""The faults of S3 as a client meets them: which there are, whom each may befall, and what it answers."""

from datetime import UTC, datetime, timedelta

from aiohttp import web

EFFECTS = {
    "s3_500": "a request is answered 500 InternalError, and not carried out",
    "s3_503": "a request is answered 503 SlowDown, and not carried out",
    "s3_refused": "a request is answered 403 AccessDenied, and not carried out",
    "s3_refused_output": "the same for an output of a shard alone, written or read",
    "s3_expired": "a request's signature is too old when it arrives: rclone sees that by itself, for moto it is said",
    "s3_missing": "an object that is there is answered 404 NoSuchKey",
    "s3_truncated": "an object's body ends halfway, and so does the connection",
    "s3_timeout_after_write": "a write or a delete is carried out, and the connection cut without an answer",
}
_WRITES = ("PUT", "POST", "DELETE")
_OUTPUT = "/out/"
_ANSWERS = {
    "s3_500": (500, "InternalError", "We encountered an internal error. Please try again."),
    "s3_503": (503, "SlowDown", "Please reduce your request rate."),
    "s3_refused": (403, "AccessDenied", "Access Denied"),
    "s3_refused_output": (403, "AccessDenied", "Access Denied"),
    "s3_missing": (404, "NoSuchKey", "The specified key does not exist."),
    "s3_expired": (
        403,
        "RequestTimeTooSkewed",
        "The difference between the request time and the current time is too large.",
    ),
}


def may_befall(fault: str, method: str, path: str) -> bool:
    """`path` is `/bucket` or `/bucket/key`."""
    is_object = path.count("/") > 1
    match fault:
        case "s3_missing" | "s3_truncated":
            return method == "GET" and is_object
        case "s3_timeout_after_write":
            return method in _WRITES
        case "s3_refused_output":
            return is_object and _OUTPUT in path
    return True


def refusal(fault: str) -> web.Response | None:
    """What S3 says by itself, None where a fault lets it see the request."""
    if fault not in _ANSWERS:
        return None
    status, code, message = _ANSWERS[fault]
    error = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
    text = f'<?xml version="1.0" encoding="UTF-8"?>\n{error}'
    return web.Response(status=status, text=text, content_type="application/xml")


def aged() -> str:
    """The date of a request that has been on its way for too long, as `X-Amz-Date` carries it."""
    return (datetime.now(UTC) - timedelta(hours=1)).strftime("%Y%m%dT%H%M%SZ")
