"""How the service says no."""

from __future__ import annotations

from typing import Any

_STATUS = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}


class Refused(Exception):
    """A request that the service would refuse; becomes its error envelope."""

    def __init__(self, message: str, kind: str = "invalid_request_error", *, details: dict[str, Any] | None = None):
        super().__init__(message)
        self.message = message
        self.kind = kind
        self.status = _STATUS[kind]
        self.details = details

    def envelope(self, request_id: str) -> dict[str, Any]:
        return envelope(self.kind, self.message, request_id, self.details)


def envelope(kind: str, message: str, request_id: str, details: dict[str, Any] | None = None) -> dict[str, Any]:
    """The documented error body."""
    error: dict[str, Any] = {"type": kind, "message": message}
    if details is not None:
        error["details"] = details
    return {"type": "error", "error": error, "request_id": request_id}


def status_of(kind: str) -> int:
    return _STATUS[kind]
