"""Routes that tell of the service: is it there, is it ready, what does it know; and the page for people."""

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import FileResponse, Response

from tl_experiments.serve.answering import Answering
from tl_experiments.serve.answers import Error, Health, ModelFacts
from tl_experiments.serve.limits import Limits, Refused
from tl_experiments.serve.metrics import Metrics
from tl_experiments.serve.page import page_response
from tl_experiments.serve.served import Served

PAGE = "/"


def make_routes(served: Served, answering: Answering, *, limits: Limits, metrics: Metrics) -> APIRouter:
    """Return the routes of one service."""
    routes = APIRouter()

    @routes.get("/health")
    async def health() -> Health:
        """Say that the process answers."""
        return Health(status="alive")

    @routes.get("/ready", responses={503: {"model": Error}})
    async def ready() -> Health:
        """Say that the network has warmed up, so that requests are answered at full speed."""
        answering.require_warm()
        return Health(status="ready")

    @routes.get("/model")
    async def model() -> ModelFacts:
        """Tell which model answers: its classes, its input, its scores, and what a request may hold."""
        return served.facts(limits)

    @routes.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def tell_metrics() -> Response:
        """Return counters and histograms in Prometheus' text format."""
        return Response(metrics.text(), media_type=CONTENT_TYPE_LATEST)

    @routes.get("/examples/{name}", response_class=FileResponse, responses={404: {"model": Error}})
    async def example(name: str) -> FileResponse:
        """Return one of the images that go with the model."""
        if name not in served.examples:
            raise Refused(404, "there is no such example; GET /model names them")
        return FileResponse(served.folder / name, media_type="image/png")

    @routes.get(PAGE, include_in_schema=False)
    async def page() -> Response:
        return page_response()

    return routes
