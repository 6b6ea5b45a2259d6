"""What a client is told when a request fails: a status and OpenAI's error object, no internals."""

from __future__ import annotations

from typing import Any

#: Status -> `type` of OpenAI's error object.
TYPES = {401: "authentication_error", 404: "not_found_error", 503: "overloaded_error", 504: "timeout_error"}


class ApiError(Exception):
    """A request that is refused or failed.

    Attributes:
        status: of the HTTP answer.
        message: for the client, without paths, addresses or tracebacks of the server.
        param: the wrong parameter, e.g. `messages[0].content[1]`.
        code: a word for programs to test.
        retry_after: seconds to wait before trying again.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code, self.retry_after = status, message, param, code, retry_after

    def body(self) -> dict[str, Any]:
        """As OpenAI sends it."""
        kind = TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def headers(self) -> dict[str, str]:
        """Headers of the response."""
        headers = {"WWW-Authenticate": "Bearer"} if self.status == 401 else {}
        return headers if self.retry_after is None else {**headers, "Retry-After": str(self.retry_after)}


def refuse(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    """400: the request is not valid."""
    return ApiError(400, message, param=param, code=code)


def failed() -> ApiError:
    """500: the reason is in the log, not in the response."""
    return ApiError(500, "the server failed to answer this request", code="internal_error")


def timed_out() -> ApiError:
    """504: the request's time is over."""
    return ApiError(504, "the request took longer than this server allows", code="timeout")


def overloaded(seconds: int) -> ApiError:
    """503: try again later."""
    return ApiError(503, "the server is overloaded: try again later", code="overloaded", retry_after=seconds)


def closing() -> ApiError:
    """503: the server is shutting down."""
    return ApiError(503, "the server is shutting down", code="shutting_down", retry_after=10)
