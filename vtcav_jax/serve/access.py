"""Who may use the page: whoever has its token, from a page of this server, on this machine.

The address that is printed has the token; its first use sets a cookie that scripts cannot read and other sites cannot
send. Requests for another host name are refused, because a site could point its own name at this machine (DNS
rebinding), as are changes that come from the pages of another origin.
"""

import hmac
import secrets
from dataclasses import dataclass, field
from urllib.parse import urlencode

from markupsafe import escape
from starlette.datastructures import Headers, MutableHeaders, QueryParams
from starlette.requests import cookie_parser
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = "127.0.0.1"
HOST_NAMES = (LOOPBACK, "localhost")
TOKEN_FIELD, TOKEN_HEADER = "token", "x-vtcav-token"
SAFE_METHODS = ("GET", "HEAD")
SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
    " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


@dataclass(frozen=True)
class AccessRules:
    """The token and port of a server."""

    port: int
    token: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)

    @property
    def cookie(self) -> str:
        """Name of the cookie; cookies do not distinguish ports, so that servers need different names."""
        return f"vtcav_{self.port}"

    @property
    def hosts(self) -> tuple[str, ...]:
        return tuple(f"{name}:{self.port}" for name in HOST_NAMES)

    def address(self, query: dict[str, str] | None = None) -> str:
        return f"http://{LOOPBACK}:{self.port}/?{urlencode({TOKEN_FIELD: self.token, **(query or {})})}"

    def is_token(self, text: str | None) -> bool:
        return text is not None and hmac.compare_digest(text.encode(), self.token.encode())


class AccessMiddleware:
    """Answers requests that are not allowed, and adds the security headers to all answers."""

    def __init__(self, app: ASGIApp, rules: AccessRules):
        self.app, self.rules = app, rules

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        answer = self._answer(scope) if scope["type"] == "http" else PlainTextResponse("expected HTTP", 400)
        await (answer or self.app)(scope, receive, send_with_headers)

    def _answer(self, scope: Scope) -> Response | None:
        """Return the answer to a request that does not reach the page; None for one that does."""
        rules, headers, query = self.rules, Headers(scope=scope), QueryParams(scope["query_string"])
        if headers.get("host") not in rules.hosts:
            return PlainTextResponse(f"unknown host; open the page at http://{rules.hosts[0]}", 421)
        cookie = cookie_parser(headers.get("cookie", "")).get(rules.cookie)
        if (query_token := query.get(TOKEN_FIELD)) is not None and scope["path"] == "/":
            if not rules.is_token(query_token):
                return _refusal(scope)
            rest = [(name, value) for name, value in query.multi_items() if name != TOKEN_FIELD]
            place = f"/?{urlencode(rest)}" if rest else "/"
            if headers.get("sec-fetch-site") == "cross-site":  # a redirect would not have the cookie yet
                response: Response = HTMLResponse(f'<meta http-equiv="refresh" content="0;url={escape(place)}">')
            else:
                response = RedirectResponse(place, 303)
            response.set_cookie(rules.cookie, rules.token, httponly=True, samesite="strict", path="/")
            return response
        if not (rules.is_token(cookie) or rules.is_token(headers.get(TOKEN_HEADER))):
            return _refusal(scope)
        if scope["method"] not in SAFE_METHODS:
            origin = headers.get("origin")
            if origin is not None and origin not in [f"http://{host}" for host in rules.hosts]:
                return JSONResponse({"error": f"changes from {origin} are not allowed"}, 403)
            if headers.get("content-type", "").partition(";")[0].strip() != "application/json":
                return JSONResponse({"error": "expected a body of type application/json"}, 415)
        return None


def _refusal(scope: Scope) -> Response:
    text = "the address lacks the token of this server; open the address that vtcav serve printed"
    return PlainTextResponse(text, 403) if scope["path"] == "/" else JSONResponse({"error": text}, 403)
