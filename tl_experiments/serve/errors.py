"""Errors as every client gets them: `{"error": "one line"}`."""

from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from tl_experiments.serve.limits import Refused

CLIENT_GONE = 499  # as nginx counts those that did not wait for their answer; nobody gets it


def error_response(status: int, message: str, headers: Any = None) -> JSONResponse:
    return JSONResponse({"error": message}, status_code=status, headers=headers)


def answer_errors(app: FastAPI) -> None:
    """Have an application answer whatever goes wrong in one way."""

    @app.exception_handler(Refused)
    async def refused(_request: Request, error: Refused) -> Response:
        return error_response(error.status, error.message, error.headers)

    @app.exception_handler(HTTPException)
    async def unrouted(request: Request, error: HTTPException) -> Response:
        told = {
            404: "there is nothing here; / is the page for people, /openapi.json describes the rest",
            405: f"{request.method} is not answered here; expected {(error.headers or {}).get('Allow', 'another')}",
        }.get(error.status_code, str(error.detail))
        return error_response(error.status_code, told, error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(_request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        name, given = first["loc"][-1], str(first.get("input"))[:50]
        return error_response(422, f"{name}={given!r}: {first['msg']}")

    @app.exception_handler(ClientDisconnect)
    async def gone(_request: Request, _error: ClientDisconnect) -> Response:
        return Response(status_code=CLIENT_GONE)

    @app.exception_handler(Exception)
    async def failed(_request: Request, _error: Exception) -> Response:
        """Its traceback goes to the log, and uvicorn then closes the connection."""
        return error_response(500, "the service has failed; its log says more", {"Connection": "close"})
