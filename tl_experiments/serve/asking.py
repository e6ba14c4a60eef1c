"""Routes that images are sent to: /predict and /explain."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from tl_experiments.serve.answering import Answering
from tl_experiments.serve.answers import Error, Predictions
from tl_experiments.serve.limits import Limits, Refused
from tl_experiments.serve.patience import unless_gone
from tl_experiments.serve.served import Served
from tl_experiments.serve.uploads import FIELD, Upload, read_uploads

USUAL_TOP = 5
SHOWS = "Explanation-Shows"  # header
BINARY = {"type": "string", "format": "binary"}
REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"model": Error, "description": "The body is no form, is cut off, or holds too many files"},
    408: {"model": Error, "description": "The body did not come in time"},
    413: {"model": Error, "description": "The body is too large"},
    415: {"model": Error, "description": "The body is of another type"},
    422: {"model": Error, "description": "No image of the request can be used, or a parameter is out of range"},
    503: {"model": Error, "description": "Too much is waiting; `Retry-After` says when to come again"},
    504: {"model": Error, "description": "The answer took too long"},
}
T = TypeVar("T")


def body(files: dict[str, Any]) -> dict[str, Any]:
    """Describe to OpenAPI a body of one image, or a form with a field of files."""
    form = {"type": "object", "properties": {FIELD: files}, "required": [FIELD]}
    image = {"schema": BINARY}
    content = {"multipart/form-data": {"schema": form}, "image/*": image, "application/octet-stream": image}
    return {"requestBody": {"required": True, "content": content}}


def make_routes(served: Served, answering: Answering, *, limits: Limits) -> APIRouter:
    """Return the routes of one model."""
    routes = APIRouter(responses=REFUSALS)
    class_names = served.classifier.description.class_names
    many = {"type": "array", "items": BINARY, "minItems": 1, "maxItems": limits.images}

    @routes.post("/predict", openapi_extra=body(many))
    async def predict(
        request: Request,
        top_k: Annotated[int, Query(ge=1, le=len(class_names))] = min(USUAL_TOP, len(class_names)),
    ) -> Predictions:
        """Classify one image or several.

        Of several images those that cannot be used get an `error` instead of a label; when none can be used, the
        status is 422.
        """
        found = await _answer(request, lambda uploads: answering.predict(uploads, top_k=top_k), limits)
        return Predictions(model=served.model, predictions=found)

    shows = "gradcam: what speaks for the class; gradients: which pixels matter for it; nothing: none does"
    picture: dict[int | str, dict[str, Any]] = {
        200: {
            "content": {"image/png": {"schema": BINARY}},
            "headers": {SHOWS: {"schema": {"type": "string"}, "description": shows}},
            "description": "The image under its explanation",
        }
    }

    @routes.post("/explain", openapi_extra=body(BINARY), response_class=Response, responses=picture)
    async def explain(
        request: Request,
        label: Annotated[str | None, Query(description="class to be explained; the most probable by default")] = None,
    ) -> Response:
        """Show what in an image speaks for a class, as a picture."""
        if label is not None and label not in class_names:
            raise Refused(422, f"label={label[:50]!r}: the model has no such class; GET /model names them")
        found = await _answer(request, lambda uploads: answering.explain(_only(uploads), label=label), limits)
        return Response(found.png, media_type="image/png", headers={SHOWS: found.shows})

    return routes


async def _answer(request: Request, answer: Callable[[list[Upload]], Awaitable[T]], limits: Limits) -> T:
    """Read a request and answer it, in the time that it has for both."""
    deadline = asyncio.get_running_loop().time() + limits.seconds
    try:
        async with asyncio.timeout_at(deadline):
            uploads = await read_uploads(request, limits=limits)
    except TimeoutError:
        raise Refused(408, f"the body did not come within {limits.seconds:g} s; send less at once") from None
    return await unless_gone(answer(uploads), request=request, deadline=deadline, limits=limits)


def _only(uploads: list[Upload]) -> Upload:
    if len(uploads) > 1:
        raise Refused(422, f"{len(uploads)} images; expected one at a time to be explained")
    return uploads[0]
