"""A real model behind real sockets, in this process: a digits model that is right on 98.6 % of its test images."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch

from tests.data.golden import encoded
from tl_experiments.build import build_classifier
from tl_experiments.data.decoding import decode
from tl_experiments.data.digits import digits
from tl_experiments.data.transforms import draw
from tl_experiments.inference.image_classifier import Classifier
from tl_experiments.serve.app import make_app
from tl_experiments.serve.guard import LOOPBACK
from tl_experiments.serve.limits import Limits
from tl_experiments.serve.served import Served
from tl_experiments.serve.service import bind, make_server

RUN = Path(__file__).parent.parent / "use" / "run_of_format_2"
NUM_IMAGES = 48


@dataclass(frozen=True)
class Expected:
    """Image files, and what the classifier says of each without a service.

    Attributes:
        files: PNG.
        labels: names.
        probabilities: float32 (N, K).
    """

    files: list[bytes]
    labels: list[str]
    probabilities: np.ndarray


@pytest.fixture(scope="session")
def classifier() -> Iterator[Classifier]:
    with build_classifier(RUN / "model", device="cpu") as classifier:
        yield classifier


@pytest.fixture(scope="session")
def expected(classifier: Classifier) -> Expected:
    test = digits(train_size=None, val_fraction=0.1, split_seed=0, image_size=32, crop_pct=1.0).test
    files = [encoded(test.source.image(int(index)), "PNG") for index in test.indices[:NUM_IMAGES]]
    canvases = [draw(decode(file, name="x"), classifier.description.canvas) for file in files]
    probabilities = classifier.probabilities(torch.from_numpy(np.stack(canvases)))
    names = classifier.description.class_names
    return Expected(files, [names[label] for label in probabilities.argmax(dim=1)], probabilities.numpy())


Start = Callable[..., AbstractContextManager[str]]


@pytest.fixture(scope="session")
def start(classifier: Classifier) -> Start:
    """Starts a service with some limits; yields its URL."""

    @contextmanager
    def started(
        *, limits: Limits | None = None, folder: Path = RUN / "model", examples: tuple[str, ...] = ()
    ) -> Iterator[str]:
        address = bind("127.0.0.1", 0)
        description = replace(classifier.description, examples=examples)
        served = Served.of(replace(classifier, description=description), folder)
        server = make_server(make_app(served, limits=limits or Limits(), hosts=LOOPBACK))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [address.socket]})
        thread.start()
        try:
            while not server.started:
                time.sleep(0.01)
            yield address.url
        finally:
            server.should_exit = True
            thread.join()

    return started


@pytest.fixture(scope="module")
def url(start: Start) -> Iterator[str]:
    with start() as url:
        yield url


@pytest.fixture
def client(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, trust_env=False, timeout=20) as client:
        yield client


def post_files(client: httpx.Client, *files: tuple[str, bytes], path: str = "/predict") -> httpx.Response:
    return client.post(path, files=[("files", file) for file in files])
