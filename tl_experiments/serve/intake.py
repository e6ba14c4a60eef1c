"""The bodies of requests: never more of them in memory than is allowed, whatever their headers say."""

import asyncio
from contextlib import suppress

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tl_experiments.serve.limits import Limits, Refused, busy

LINGER_SECONDS = 1.0  # that what a client still sends is thrown away, so that it comes to read the answer


class Intake:
    """ASGI middleware: raises `Refused` where a body is read that is too large.

    A request that is answered before its body has come is the last one of its connection.
    """

    def __init__(self, app: ASGIApp, *, limits: Limits) -> None:
        self._app, self._limits = app, limits
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = _Body(Headers(scope=scope), receive, send)
        try:
            await self._app(scope, lambda: self._receive(body), body.send)
        finally:
            self._held -= body.taken

    async def _receive(self, body: "_Body") -> Message:
        if body.declared > self._limits.body_bytes:
            raise self._too_large()
        message = await body.receive()
        if message["type"] == "http.request":
            self._held += len(message.get("body", b""))
            if body.taken > self._limits.body_bytes:
                raise self._too_large()
            if self._held > self._limits.held_bytes:
                raise busy("too many large requests at once")
        return message

    def _too_large(self) -> Refused:
        megabytes = self._limits.body_bytes / 1e6
        return Refused(413, f"the request has more than {megabytes:g} MB; send fewer or smaller images at once")


class _Body:
    """One request's body on its way, and the answer that may come before its end.

    Attributes:
        declared: its bytes, as the client says; 0 where it does not.
        taken: bytes that have come.
    """

    def __init__(self, headers: Headers, receive: Receive, send: Send) -> None:
        length = headers.get("content-length", "")
        self.declared = int(length[:20]) if length.isdecimal() else 0
        self.taken = 0
        self._whole = not self.declared and "transfer-encoding" not in headers
        self._asks_first = "expect" in headers
        self._receive, self._send = receive, send

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self.taken += len(message.get("body", b""))
            self._whole = not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        if self._whole:
            await self._send(message)
        elif message["type"] == "http.response.start":
            await self._send({**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]})
        else:
            await self._send({**message, "more_body": True})
            if not message.get("more_body", False):
                await self._throw_away()
                await self._send({"type": "http.response.body", "body": b""})

    async def _throw_away(self) -> None:
        """To close a connection that holds unread bytes resets it, and the answer may be lost."""
        if self._asks_first:  # it has been told not to send any
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_SECONDS):
                while (message := await self._receive())["type"] == "http.request" and message.get("more_body", False):
                    pass
