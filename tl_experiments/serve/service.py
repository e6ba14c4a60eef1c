"""`tlx serve`: a trained model behind HTTP, until it is asked to stop."""

import ipaddress
import socket
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from tl_experiments.inference.image_classifier import Classifier
from tl_experiments.runtime.listening import listen
from tl_experiments.runtime.process import describe_device
from tl_experiments.runtime.signals import Terminated
from tl_experiments.serve.app import make_app
from tl_experiments.serve.connections import BoundedProtocol
from tl_experiments.serve.guard import LOOPBACK
from tl_experiments.serve.limits import Limits
from tl_experiments.serve.served import Served
from tl_experiments.tracking.console import Console

FINISH_SECONDS = 10  # for requests in flight when the service is asked to stop


@dataclass(frozen=True)
class Address:
    """Where the service is reached.

    Attributes:
        socket: that listens; who connects before the service has started waits for it.
        host: as the user named it.
    """

    socket: socket.socket
    host: str

    @property
    def is_loopback(self) -> bool:
        """Whether this machine alone can reach it."""
        return ipaddress.ip_address(self.socket.getsockname()[0]).is_loopback

    @property
    def authority(self) -> str:
        return f"[{self.host}]" if ":" in self.host else self.host

    @property
    def url(self) -> str:
        return f"http://{self.authority}:{self.socket.getsockname()[1]}"


def bind(host: str, port: int) -> Address:
    """Take a port; 0 is any that is free.

    Raises:
        SettingError: it is in use, or not this machine's.
    """
    return Address(listen(host, port), host)


def make_server(app: ASGIApp) -> uvicorn.Server:
    """Make the HTTP server, which is silent but for what goes wrong."""
    config = uvicorn.Config(
        app,
        http=BoundedProtocol,  # of h11, the strict one of its parsers
        ws="none",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=FINISH_SECONDS,
    )
    return uvicorn.Server(config)


def serve(
    classifier: Classifier,
    folder: Path,
    *,
    address: Address,
    limits: Limits,
    wait_seconds: float,
    workers: int | None,
    console: Console,
) -> None:
    """Serve a trained model until SIGINT or SIGTERM; requests in flight are finished first.

    Args:
        classifier: that answers; nothing else may use it meanwhile.
        folder: that it is from.
        address: where it is reached.
        limits: of requests.
        wait_seconds: that a batch is held back at most for images that are being decoded.
        workers: as of `make_app`.
        console: where is told what goes on.
    """
    served = Served.of(classifier, folder)
    hosts = LOOPBACK | {address.authority.lower()} if address.is_loopback else None
    app = make_app(served, limits=limits, wait_seconds=wait_seconds, workers=workers, hosts=hosts)
    server = make_server(app)
    if not address.is_loopback:
        console.notice(f"warning: {address.host} is reached from other machines, and nobody is asked for a password")
    about = f"{len(classifier.description.class_names)} classes, {describe_device(classifier.compute.device)}"
    console.notice(f"model   {served.name} ({about}, {classifier.compute.infer.name})")
    console.notice(f"serving {address.url}  (Ctrl-C stops it)")
    try:
        server.run(sockets=[address.socket])
    except (KeyboardInterrupt, Terminated):  # uvicorn passes on why it has stopped, in good order
        if not server.started:
            raise
    console.notice("stopped")
