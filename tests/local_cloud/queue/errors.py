"""What the local queue refuses, each with the HTTP status that its caller sees."""


class Refused(Exception):
    """Refused
    ├── BadSubmission     400: the body cannot become a job
    ├── BodyTooLarge      413: the body is over the operation's limit
    ├── OutputRefused     400: a worker's reply is not valid JSON, or over the limit
    ├── JobNotFound       404: unknown, expired, purged or past its retention
    └── NotRetryable      400: /retry of a job that neither failed nor timed out
    """

    status_code = 400


class BadSubmission(Refused):
    pass


class BodyTooLarge(Refused):
    status_code = 413


class OutputRefused(Refused):
    pass


class JobNotFound(Refused):
    status_code = 404

    def __init__(self) -> None:
        super().__init__("job not found")


class NotRetryable(Refused):
    pass
