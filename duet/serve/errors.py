"""What a client is told when its request is not answered: a status and OpenAI's error object, nothing of the inside."""

from __future__ import annotations

from typing import Any

#: Status -> `type` of OpenAI's error object.
TYPES = {401: "authentication_error", 404: "not_found_error", 503: "overloaded_error", 504: "timeout_error"}


class ApiError(Exception):
    """A request that is refused or failed.

    Attributes:
        status: of the HTTP answer.
        message: for the client; holds no path, address or traceback of the server.
        param: the parameter at fault, as `messages[0].content[1]`.
        code: a word for programs.
        retry_after: seconds after which to come again.
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
        """Those that go with the answer."""
        headers = {"WWW-Authenticate": "Bearer"} if self.status == 401 else {}
        return headers if self.retry_after is None else {**headers, "Retry-After": str(self.retry_after)}


def refuse(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    """400: the request can't be answered as it is."""
    return ApiError(400, message, param=param, code=code)


def failed() -> ApiError:
    """500: the log says why, the client does not need to know."""
    return ApiError(500, "the server failed to answer this request", code="internal_error")


def timed_out() -> ApiError:
    """504: the time that a request may take is over."""
    return ApiError(504, "the request took longer than this server allows", code="timeout")


def overloaded(seconds: int) -> ApiError:
    """503: come again later."""
    return ApiError(503, "the server has too much to do: come again later", code="overloaded", retry_after=seconds)


def closing() -> ApiError:
    """503: the server is about to end."""
    return ApiError(503, "the server is shutting down", code="shutting_down", retry_after=10)
