"""Who may ask, and what a browser may do with an answer."""

from collections.abc import Set

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tl_experiments.serve.errors import error_response

LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})
POLICY = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Guard:
    """ASGI middleware: refuses requests that a page of another site has a browser make, and adds `HEADERS`."""

    def __init__(self, app: ASGIApp, *, hosts: Set[str] | None) -> None:
        """Guard an application.

        Args:
            app: to be guarded.
            hosts: names that it is called by, without ports; None is any. Where it is reached by this machine alone,
                another name is a page's that has its own name lead here (DNS rebinding).
        """
        self._app, self._hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        headers = Headers(scope=scope)
        if self._hosts is not None and _host(headers) not in self._hosts:
            known = " or ".join(sorted(self._hosts))
            refusal = error_response(400, f"the Host header names another machine; expected {known}")
            await refusal(scope, receive, send_guarded)
        elif headers.get("sec-fetch-site") == "cross-site" and scope["method"] not in ("GET", "HEAD"):
            refusal = error_response(403, "a page of another site sent this request; expected the service's own page")
            await refusal(scope, receive, send_guarded)
        else:
            await self._app(scope, receive, send_guarded)


def _host(headers: Headers) -> str:
    """Return the name without its port; an IPv6 address keeps its brackets."""
    host = headers.get("host", "").strip().lower()
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdecimal() else host
