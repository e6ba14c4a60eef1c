"""The service as an ASGI application; plain values in, nothing global."""

from collections.abc import AsyncIterator, Set
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI
from starlette.types import ASGIApp

from tl_experiments.runtime.process import num_cores
from tl_experiments.serve import asking, telling
from tl_experiments.serve.answering import Answering
from tl_experiments.serve.errors import answer_errors
from tl_experiments.serve.guard import Guard
from tl_experiments.serve.intake import Intake
from tl_experiments.serve.limits import Limits
from tl_experiments.serve.metrics import Metrics, Watched
from tl_experiments.serve.served import Served
from tl_experiments.serve.telling import PAGE

PACKAGE = "tl_experiments"
FEW = 4  # decoders, unless more are asked for
WAIT_SECONDS = 0.005  # that a batch is held back at most


def make_app(
    served: Served,
    *,
    limits: Limits,
    wait_seconds: float = WAIT_SECONDS,
    workers: int | None = None,
    hosts: Set[str] | None = None,
) -> ASGIApp:
    """Make the service for one model; its threads live as long as the application's lifespan.

    Args:
        served: the model. Nothing else may use its network meanwhile.
        limits: of requests.
        wait_seconds: that a batch is held back at most for images that are being decoded.
        workers: threads that decode; None is one for each core, but few: each may hold an image of the most pixels,
            several times over while it is converted.
        hosts: names that it may be called by; None is any.
    """
    metrics = Metrics()
    answering = Answering(
        served.classifier,
        limits=limits,
        wait_seconds=wait_seconds,
        workers=min(FEW, num_cores()) if workers is None else max(1, workers),
        metrics=metrics,
    )

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        with answering:
            yield

    # Its pages for people would load their scripts from a CDN, which the policy forbids and a closed network lacks.
    app = FastAPI(
        title=f"{PACKAGE}: {served.name}", version=version(PACKAGE), docs_url=None, redoc_url=None, lifespan=lifespan
    )
    app.include_router(asking.make_routes(served, answering, limits=limits))
    app.include_router(telling.make_routes(served, answering, limits=limits, metrics=metrics))
    answer_errors(app)
    paths = {PAGE, *app.openapi()["paths"]}
    guarded = Guard(app, hosts=hosts)  # outside of the application, so that its last resort for errors is guarded too
    return Watched(Intake(guarded, limits=limits), metrics=metrics, paths=paths)
