"""The page for people: one file that loads nothing from elsewhere, and that a browser lets do nothing else."""

import base64
import hashlib
import re
from functools import cache
from importlib.resources import files

from starlette.responses import HTMLResponse

FILE = "page.html"


@cache
def _page() -> tuple[str, str]:
    """Return the page and its content security policy, which names the page's own script and style by digest."""
    text = files("tl_experiments.serve").joinpath(FILE).read_text(encoding="utf-8")
    policy = (
        f"default-src 'none'; script-src {_digest(text, 'script')}; style-src {_digest(text, 'style')}; "
        "img-src 'self' blob: data:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    )
    return text, policy


def _digest(text: str, element: str) -> str:
    [content] = re.findall(f"<{element}>(.*?)</{element}>", text, flags=re.DOTALL)
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


def page_response() -> HTMLResponse:
    text, policy = _page()
    return HTMLResponse(text, headers={"Content-Security-Policy": policy})
