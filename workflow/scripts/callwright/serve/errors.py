"""Errors as OpenAI's API writes them."""

from typing import Any


class ApiError(Exception):
    """A request that is refused or has failed: `status` is HTTP's, `body` is what the client gets."""

    def __init__(
        self,
        message: str,
        status: int = 400,
        param: str | None = None,
        code: str | None = None,
        kind: str = "invalid_request_error",
        headers: dict[str, str] | None = None,
    ):
        super().__init__(message)
        self.message, self.status, self.param, self.code, self.kind = message, status, param, code, kind
        self.headers = headers or {}

    @property
    def body(self) -> dict[str, Any]:
        """`{"error": {"message", "type", "param", "code"}}`."""
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}


def busy(active: int) -> ApiError:
    """Too many requests at once; OpenAI's client tries again by itself."""
    return ApiError(
        f"{active} requests are under way, and no more may wait: try again soon",
        429,
        code="rate_limit_exceeded",
        kind="rate_limit_error",
        headers={"retry-after": "1"},
    )


def failed() -> ApiError:
    """A fault of the server; what happened stands in its log alone."""
    return ApiError(
        "the server failed on this request; its log says why", 500, code="server_error", kind="server_error"
    )
