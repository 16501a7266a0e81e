"""Who may talk to the studio, and the headers that every answer has.

Against pages of other sites in the same browser: the Host that a request names has to be one of this server's (so that
a name that was bound to this address by others, "DNS rebinding", is refused), the Origin has to be the same, and
whatever changes anything needs a header that forms and pictures of other sites cannot send. Against other machines: a
token, wherever the server listens beyond loopback.
"""

import asyncio
import hmac
import ipaddress
import socket
from collections.abc import MutableMapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import Any

from starlette.datastructures import Headers, MutableHeaders, QueryParams
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..limits import Limits
from .refusals import refusal

MARK = "x-nstgpu"
"""The header of requests that change anything."""
COOKIE = "nstgpu-token"
LOOPBACK = frozenset(("localhost", "127.0.0.1", "[::1]"))
POLICY = "; ".join(
    (
        "default-src 'none'", "script-src 'self'", "style-src 'self'", "img-src 'self' blob: data:",
        "connect-src 'self'", "form-action 'none'", "frame-ancestors 'none'", "base-uri 'none'",
    )
)  # fmt: skip
_HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
_SAFE = ("GET", "HEAD")


@dataclass(frozen=True)
class Access:
    """How the server may be reached."""

    host: str = "127.0.0.1"
    """That it listens on."""
    token: str | None = None
    """Without which nobody is answered; None for everybody on this machine."""

    @property
    def is_local(self) -> bool:
        return is_loopback(self.host)

    def knows(self, host: str) -> bool:
        """Whether a Host header names this server. Addresses cannot be bound by others to this one; names can."""
        name = _without_port(host)
        if name in LOOPBACK:
            return True
        if self.is_local:
            return name == self.host
        return _is_address(name) or name in (self.host.lower(), socket.gethostname().lower(), socket.getfqdn().lower())


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens there."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


class Guard:
    """ASGI middleware around everything else."""

    def __init__(self, app: ASGIApp, access: Access, limits: Limits) -> None:
        self._app, self._access, self._limits = app, access, limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        problem = self._problem(scope, headers)
        # Live connections are pinged. Before Python 3.12 `wait_for` may swallow that their tasks are cancelled.
        guarded = self._patient(_with_headers(send)) if scope["type"] == "http" else send
        if problem is not None and scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": problem[1][:120]})
        elif problem is not None:
            await refusal(scope["method"], *problem)(scope, receive, guarded)
        elif self._brings_token(scope):
            answer = RedirectResponse(scope["path"], 303)
            answer.set_cookie(COOKIE, self._access.token or "", httponly=True, samesite="strict", path="/")
            await answer(scope, receive, guarded)
        else:
            await self._app(scope, receive, guarded)

    def _problem(self, scope: Scope, headers: Headers) -> tuple[int, str] | None:
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self._access.knows(hosts[0]):
            return 403, "this server is not called so; use the address that it printed"
        changes = scope["type"] == "http" and scope["method"] not in _SAFE
        origin, site = headers.get("origin"), headers.get("sec-fetch-site", "none")
        if origin is not None and origin not in (f"http://{hosts[0]}", f"https://{hosts[0]}"):
            return 403, "pages of other sites may not talk to this server"
        if site not in ("none", "same-origin") and (changes or scope["path"].startswith("/api")):
            return 403, "pages of other sites may not talk to this server"
        if not self._is_known(scope, headers):
            return 401, "this server wants its token; open the address that it printed, or send Authorization: Bearer"
        if changes and headers.get(MARK) != "1":
            return 403, "requests that change anything need the header X-Nstgpu: 1"
        return None

    def _is_known(self, scope: Scope, headers: Headers) -> bool:
        if self._access.token is None:
            return True
        given = [*QueryParams(scope.get("query_string", b"")).getlist("token")] if scope["path"] == "/" else []
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        given += [bearer.strip()] if scheme.lower() == "bearer" else []
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
        except CookieError:
            cookie = None
        given += [cookie.value] if cookie is not None else []
        wanted = self._access.token.encode()
        return any(hmac.compare_digest(one.encode("utf-8", "replace"), wanted) for one in given)

    def _brings_token(self, scope: Scope) -> bool:
        """Whether the token stands in the address, where it is not to stay."""
        return (
            scope["type"] == "http"
            and scope["path"] == "/"
            and self._access.token is not None
            and "token" in QueryParams(scope.get("query_string", b""))
        )

    def _patient(self, send: Send) -> Send:
        """Sends to those who read; who takes nothing for too long is left."""

        async def within(message: Message) -> None:
            await asyncio.wait_for(send(message), self._limits.silence_seconds)

        return within


def _with_headers(send: Send) -> Send:
    """What is sent, with the headers that every answer has, where it has none of that name."""

    async def headed(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return headed


def _without_port(host: str) -> str:
    name, colon, port = host.strip().lower().rpartition(":")
    return name if colon and port.isdecimal() and not name.endswith(":") else host.strip().lower()


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True
