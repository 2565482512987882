"""Around every request: its id, who may ask, headers that keep a page from calling elsewhere, a count.

Covered: `x-request-id`, keys and rate limits, the Host header of a loopback server, security headers, paths of the
page's framework that nobody needs. Not covered: what is answered (`api`, `page`).
"""

from __future__ import annotations

import ipaddress
import re
import uuid
from dataclasses import dataclass, field

from fastapi import HTTPException, Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from medtune.serving.errors import ServingError
from medtune.serving.keys import Keys
from medtune.serving.limits import RateLimit
from medtune.serving.metrics import Metrics

UNNEEDED = re.compile(
    r"^(/\w\w)?/(gradio_api/)?(upload|file|stream|proxy|deep_link|runs|monitoring|login/huggingface)\b"
)
BODY_BYTES = 1 << 20
TOO_LARGE = f"The request is larger than {BODY_BYTES:,} bytes."
REQUEST_ID = re.compile(r"^[\w.-]{1,100}$")
HEADERS = {
    # 'unsafe-eval': the page's framework compiles its templates in the browser. Nothing is loaded from elsewhere.
    "Content-Security-Policy": (
        "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; form-action 'self'; base-uri 'self'; "
        "frame-src 'self'; frame-ancestors 'none'; object-src 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


@dataclass(frozen=True)
class Access:
    """Who may ask, and how often. Without `keys` everybody who reaches the server may."""

    keys: Keys | None = None
    per_key: RateLimit = field(default_factory=lambda: RateLimit(0))
    per_address: RateLimit = field(default_factory=lambda: RateLimit(0))

    def check(self, request: Request, scope: str) -> str:
        """The id of the request's key, empty without keys. Raises ServingError (401, 403, 429)."""
        self.count(request.client.host if request.client else "")
        if self.keys is None:
            return ""
        kind, _, text = request.headers.get("authorization", "").partition(" ")
        key = self.keys.find(text.strip()) if kind.lower() == "bearer" else None
        if key is None:
            raise ServingError(401, "No valid key. Send 'Authorization: Bearer KEY'.", code="invalid_api_key")
        if scope not in key.scopes:
            raise ServingError(403, f"This key lacks the scope {scope!r}.", code="missing_scope")
        if wait := self.per_key.take(key.id):
            raise _too_many(wait)
        return key.id

    def count(self, address: str) -> None:
        """One request of an address. Raises ServingError (429)."""
        if wait := self.per_address.take(address):
            raise _too_many(wait)


class Gateway:
    """The outermost layer. `hosts` are the only names that a request may call the server by; empty allows any."""

    def __init__(self, app: ASGIApp, metrics: Metrics, hosts: frozenset[str] = frozenset()) -> None:
        self.app, self.metrics, self.hosts = app, metrics, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        asked = Headers(scope=scope)
        given = asked.get("x-request-id", "")
        request_id = given if REQUEST_ID.match(given) else uuid.uuid4().hex

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = request_id
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                if scope["path"].startswith("/v1"):
                    self.metrics.requests.labels(str(message["status"])).inc()
            await send(message)

        read = 0

        async def receive_so_much() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > BODY_BYTES:
                raise HTTPException(413, TOO_LARGE)
            return message

        refused = self._refuse(scope["path"], asked)
        app = refused.response() if refused else self.app
        await app(scope, receive_so_much, send_with_headers)

    def _refuse(self, path: str, headers: Headers) -> ServingError | None:
        if headers.get("content-length", "0").isdecimal() and int(headers.get("content-length", "0")) > BODY_BYTES:
            return ServingError(413, TOO_LARGE)
        # A page elsewhere whose name resolves to 127.0.0.1 could otherwise read a loopback server.
        if self.hosts and host_name(headers.get("host", "")) not in self.hosts:
            return ServingError(400, "This server does not go by that name (Host header).", code="unknown_host")
        if UNNEEDED.match(path):
            return ServingError(404, "Not Found")
        return None


def host_name(host: str) -> str:
    """A Host header without its port: `[::1]:8000` gives `::1`."""
    return host.partition("]")[0][1:] if host.startswith("[") else host.partition(":")[0].lower()


def is_loopback(host: str) -> bool:
    """Whether `host` reaches this machine alone."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _too_many(wait: float) -> ServingError:
    return ServingError(429, "Too many requests; slow down.", code="rate_limit_exceeded", retry_after=wait)
