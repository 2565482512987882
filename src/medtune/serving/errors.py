"""The one shape of every error: {"error": {"message", "type", "param", "code"}}, as OpenAI's clients read it.

Covered: the exception that carries it, those that the service raises, handlers for what the web framework raises.
Not covered: mistakes on the command line (`medtune.errors`).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

TYPES = {400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
CODES = {404: "not_found", 405: "method_not_allowed", 413: "request_too_large"}


class ServingError(Exception):
    """A request that is not answered, and why. `retry_after` in seconds becomes the header `Retry-After`."""

    def __init__(
        self,
        status: int,
        message: str,
        type: str = "",
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        kind = type or TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
        self.status, self.retry_after = status, retry_after
        self.body: dict[str, Any] = {
            "error": {"message": message, "type": kind, "param": param, "code": code or CODES.get(status)}
        }

    @property
    def headers(self) -> dict[str, str]:
        headers = {} if self.retry_after is None else {"Retry-After": str(max(1, math.ceil(self.retry_after)))}
        return headers | ({"WWW-Authenticate": "Bearer"} if self.status == 401 else {})

    def response(self) -> JSONResponse:
        return JSONResponse(self.body, self.status, self.headers)


def not_found(model: str, names: Collection[str]) -> ServingError:
    """404: no such run."""
    message = f"There is no model {model[:100]!r} here. Served are: {', '.join(names)}."
    return ServingError(404, message, param="model", code="model_not_found")


def busy(seconds: float) -> ServingError:
    """503: the queue is full; `seconds` until a place should be free."""
    message = "Too many requests are waiting. In an emergency call the emergency number; otherwise try again shortly."
    return ServingError(503, message, code="queue_full", retry_after=min(seconds, 60.0))


def out_of_time(seconds: float) -> ServingError:
    """503: the reply took longer than allowed."""
    return ServingError(503, f"The reply took more than {seconds:g} s.", code="timeout", retry_after=5)


def store_away() -> ServingError:
    """503: what must be stored cannot be."""
    message = "The reply could not be stored, so it is not given. Try again shortly."
    return ServingError(503, message, code="store_unavailable", retry_after=5)


def add_handlers(app: FastAPI) -> None:
    """Give every error of `app`'s own routes the one shape; an application mounted in it has its own."""
    app.add_exception_handler(ServingError, _serving_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(Exception, _bug)


async def _serving_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ServingError)
    return error.response()


async def _http_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    response = ServingError(error.status_code, str(error.detail)).response()
    response.headers.update(error.headers or {})
    return response


async def _validation_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    return invalid(error.errors()).response()


async def _bug(_: Request, error: Exception) -> JSONResponse:
    del error  # the server logs it with its traceback
    return ServingError(500, "The server has a bug; its log says where.", code="internal_error").response()


def invalid(problems: Collection[Mapping[str, Any]]) -> ServingError:
    """400 from pydantic's list of what is wrong: the first problem, where it is, and how many more there are."""
    first = next(iter(problems))
    param = ".".join(str(part) for part in first["loc"] if part not in ("body", "query", "path")) or None
    more = f" ({len(problems) - 1} more)" if len(problems) > 1 else ""
    return ServingError(
        400, f"{param + ': ' if param else ''}{first['msg']}{more}", param=param, code=str(first["type"])
    )
