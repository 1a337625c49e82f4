"""Who may ask, from where, and what every response forbids the browser: the outermost layer of `kneessl serve`.

On loopback a page of another site can reach the server through the user's browser, by a form or by DNS rebinding
(OWASP, "Cross-Site Request Forgery Prevention"; Fetch Metadata: W3C), so the names by which the server is called and
the origin of whatever changes something are checked there too. Elsewhere every request needs the token.
"""

import hmac
import ipaddress
import secrets
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kneessl.errors import UserError, out_of_space
from kneessl.reader.web.faults import log_fault

COOKIE = "kneessl_session"
FAULT = "The request failed because of a fault in kneessl; its log names the place."
NO_SPACE = "The server's disk is full; make room there, then send it again."
LEAST_TOKEN = 16
"""Characters."""
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
OPEN_PATHS = ("/login", "/static/")
"""What can be had without a token: the form, and what it looks like."""
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": PAGE_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}
"""Headers of every response, unless it sets them itself."""


@dataclass(frozen=True)
class Access:
    """Who may use a server.

    Raises:
        UserError: a token of fewer than 16 characters, or none where one is needed.
    """

    host: str
    """What it listens on."""
    token: str | None
    """Needed wherever it can be reached from another computer."""
    session: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    """What the browser gets for the token: good until the server stops."""

    def __post_init__(self) -> None:
        if self.token is None and not is_loopback(self.host):
            raise UserError(f"a server on {self.host} can be reached from other computers and needs a token")
        if self.token is not None and len(self.token) < LEAST_TOKEN:
            raise UserError(f"KNEESSL_TOKEN has fewer than {LEAST_TOKEN} characters; set a longer one, or none")

    @property
    def names(self) -> frozenset[str] | None:
        """Host names that requests may use; None allows any, since a token is needed."""
        return LOOPBACK_NAMES | {self.host} if is_loopback(self.host) else None

    def is_token(self, given: str) -> bool:
        """Whether that is the token, in constant time."""
        return self.token is not None and hmac.compare_digest(given.encode(), self.token.encode())

    def allows(self, headers: Headers) -> bool:
        """Whether a request carries the token, or the session that was given for it."""
        if self.token is None:
            return True
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self.is_token(given.strip()):
            return True
        return hmac.compare_digest(_cookie(headers).encode(), self.session.encode())


def is_loopback(host: str) -> bool:
    """Whether an address to listen on can be reached from this computer only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


class Guard:
    """ASGI middleware: refuses what `Access` does not allow, sets `HEADERS`, and turns faults into a sentence.

    Args:
        app: What it guards.
        access: Who may use it.
    """

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self.app, self.access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = False

        async def send_guarded(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        refusal = self._refusal(scope["method"], scope["path"], Headers(scope=scope))
        try:
            await (refusal or self.app)(scope, receive, send_guarded)
        except Exception as error:
            log_fault("a request", error)
            if not started:
                problem = _problem(507, NO_SPACE) if out_of_space(error) else _problem(500, FAULT)
                await problem(scope, receive, send_guarded)

    def _refusal(self, method: str, path: str, headers: Headers) -> Response | None:
        names = self.access.names
        if names is not None and _host_name(headers.get("host", "")) not in names:
            return _problem(421, "This server answers to the name localhost only.")
        if method not in {"GET", "HEAD", "OPTIONS"} and not _same_origin(headers):
            return _problem(403, "A page of another site may not change anything here.")
        if path.startswith(OPEN_PATHS) or self.access.allows(headers):
            return None
        if method == "GET" and "text/html" in headers.get("accept", ""):
            return RedirectResponse("/login", 303)
        return _problem(401, "The token is missing or wrong.", {"WWW-Authenticate": "Bearer"})


def _problem(status: int, sentence: str, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse({"detail": sentence}, status, headers)


def _same_origin(headers: Headers) -> bool:
    """Whether a request comes from a page of this server, or from no page: programs send neither header."""
    if headers.get("sec-fetch-site", "same-origin") not in {"same-origin", "none"}:
        return False
    origin = headers.get("origin")
    return origin is None or urlsplit(origin).netloc.lower() == headers.get("host", "").lower()


def _host_name(host: str) -> str:
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


def _cookie(headers: Headers) -> str:
    try:
        cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return ""
    return cookie.value if cookie else ""
