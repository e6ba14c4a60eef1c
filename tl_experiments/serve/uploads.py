"""The images of a request, as bytes: from a form or as the whole body."""

from dataclasses import dataclass

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from tl_experiments.data.image_files import printable
from tl_experiments.serve.limits import Limits, Refused

FIELD = "files"
MOST_NAME = 200  # characters of a file name that are said back
EXPECTED = f"expected multipart/form-data with files in the field {FIELD!r}, or one image as the body (image/*)"


@dataclass(frozen=True)
class Upload:
    """One image file of a client.

    Attributes:
        name: as the client calls it, made printable; never a path to open. None for a body without one.
        content: its bytes.
    """

    name: str | None
    content: bytes

    @property
    def shown(self) -> str:
        return self.name or "the image"


async def read_uploads(request: Request, *, limits: Limits) -> list[Upload]:
    """Read the body of a request: one image or more.

    Raises:
        Refused: it is too large, of another type, or holds no image.
        ClientDisconnect: the client has gone.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return await _read_form(request, limits=limits)
    if kind == "application/octet-stream" or kind.startswith("image/"):
        if not (content := await request.body()):
            raise Refused(422, "the body is empty; expected the bytes of an image")
        return [Upload(None, content)]
    raise Refused(415, f"content type {printable(kind)[:MOST_NAME]!r}; {EXPECTED}")


class _Form(MultiPartParser):
    """A form whose files stay in memory, and that knows whether it has come to its end."""

    def __init__(self, request: Request, *, limits: Limits) -> None:
        super().__init__(request.headers, request.stream(), max_files=limits.images, max_fields=0)
        self.spool_max_size = limits.body_bytes
        self.ended = False

    def on_end(self) -> None:
        self.ended = True


async def _read_form(request: Request, *, limits: Limits) -> list[Upload]:
    form = _Form(request, limits=limits)
    try:
        fields = await form.parse()
    except MultiPartException as error:
        told = error.message.rstrip(".")
        raise Refused(400, f"the form: {told}; expected up to {limits.images} files named {FIELD!r}") from error
    try:
        if not form.ended:
            raise Refused(400, "the form is cut off: its last boundary is missing; send it whole")
        if not fields:
            raise Refused(422, f"the form is empty; expected at least one file named {FIELD!r}")
        return [await _upload(name, value) for name, value in fields.multi_items()]
    finally:
        await fields.close()


async def _upload(name: str, value: UploadFile | str) -> Upload:
    if name != FIELD or isinstance(value, str):
        raise Refused(422, f"the form: unknown field {printable(name)[:MOST_NAME]!r}; expected files named {FIELD!r}")
    return Upload(shown_name(value.filename or ""), await value.read())


def shown_name(name: str) -> str:
    """Return a client's file name as it can be shown: printable, and not too long."""
    shown = printable(name)
    return shown if len(shown) <= MOST_NAME else f"{shown[: MOST_NAME - 1]}…"
