"""How long somebody waits for an answer: until a deadline, or until its client has gone."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from starlette.requests import ClientDisconnect, Request

from tl_experiments.serve.limits import Limits, Refused

T = TypeVar("T")


async def unless_gone(work: Awaitable[T], *, request: Request, deadline: float, limits: Limits) -> T:
    """Await work for a client; it is cancelled, and leaves the queue, when nobody waits for it any more.

    Args:
        work: to be done.
        request: whose body has been read.
        deadline: on the event loop's clock.
        limits: of which the deadline was made.

    Raises:
        Refused: it took too long; 504.
        ClientDisconnect: the client has gone.
    """
    answer, gone = asyncio.ensure_future(work), asyncio.ensure_future(_gone(request))
    try:
        timeout = max(0.0, deadline - asyncio.get_running_loop().time())
        await asyncio.wait({answer, gone}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            return answer.result()
        if gone.done():
            raise ClientDisconnect
        raise Refused(504, f"no answer within {limits.seconds:g} s; send fewer images at once, or later")
    finally:
        for task in (answer, gone):
            task.cancel()
        await asyncio.gather(answer, gone, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
