"""A service that has too much to do says so, in time, and does nothing for those who have gone."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace

import httpx
import pytest
import torch
from PIL import Image
from starlette.testclient import TestClient

from tests.serve.conftest import RUN, Expected, post_files
from tl_experiments.inference.image_classifier import Classifier
from tl_experiments.serve import answering
from tl_experiments.serve.app import make_app
from tl_experiments.serve.limits import Limits
from tl_experiments.serve.served import Served
from tl_experiments.serve.service import bind, make_server


class Gated(torch.nn.Module):
    """A network that waits at a gate, and counts what it has seen."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network, self.gate, self.seen = network, threading.Event(), 0
        self.entered = threading.Event()
        self.gate.set()

    def close(self) -> None:
        self.entered.clear()
        self.gate.clear()

    def forward(self, canvases: torch.Tensor) -> torch.Tensor:
        self.entered.set()
        self.gate.wait(10)
        self.seen += len(canvases)
        return self.network(canvases)


@contextmanager
def serving(network: Gated, classifier: Classifier, limits: Limits) -> Iterator[httpx.Client]:
    address = bind("127.0.0.1", 0)
    gated = replace(classifier, network=network)  # type: ignore[arg-type]
    server = make_server(make_app(Served.of(gated, RUN / "model"), limits=limits))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [address.socket]})
    thread.start()
    try:
        with httpx.Client(base_url=address.url, trust_env=False, timeout=20) as client:
            while not server.started or (ready := client.get("/ready")).status_code == 503:
                time.sleep(0.01)
            assert ready.status_code == 200, "never ready"
            network.seen = 0
            yield client
    finally:
        network.gate.set()
        server.should_exit = True
        thread.join()


@pytest.fixture
def network(classifier: Classifier) -> Gated:
    return Gated(classifier.network)


def wait_for(client: httpx.Client, line: str) -> None:
    """Wait until the metrics have a line."""
    deadline = time.monotonic() + 10
    while f"{line}\n" not in client.get("/metrics").text:
        assert time.monotonic() < deadline, line
        time.sleep(0.01)


def test_an_answer_that_takes_too_long_is_given_up(network: Gated, classifier: Classifier, expected: Expected) -> None:
    files = [("a.png", expected.files[0]), ("b.png", expected.files[1])]
    with serving(network, classifier, Limits(seconds=0.5)) as client, ThreadPoolExecutor(2) as pool:
        network.close()
        first = pool.submit(post_files, client, files[0])
        network.entered.wait(5)
        second = post_files(client, files[1])
        assert second.status_code == 504
        assert second.json()["error"] == "no answer within 0.5 s; send fewer images at once, or later"
        assert first.result(5).status_code == 504
        network.gate.set()
        assert post_files(client, files[1]).json()["predictions"][0]["label"] == expected.labels[1]
    assert network.seen == 2  # the second was not looked at for nobody


def test_a_full_queue_asks_to_come_again(network: Gated, classifier: Classifier, expected: Expected) -> None:
    files = [(f"{number}.png", expected.files[number]) for number in range(4)]
    with serving(network, classifier, Limits(waiting=4)) as client, ThreadPoolExecutor(2) as pool:
        network.close()
        pool.submit(post_files, client, files[0])
        network.entered.wait(5)
        second = pool.submit(post_files, client, *files)
        wait_for(client, "tlx_queue_images 4.0")
        refused = post_files(client, files[0])
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert refused.json()["error"] == "4 images are waiting already; try again in a second"
        assert client.get("/health").status_code == 200
        network.gate.set()
        assert [one["label"] for one in second.result(5).json()["predictions"]] == expected.labels[:4]


def test_explanations_do_not_fill_the_queue(network: Gated, classifier: Classifier, expected: Expected) -> None:
    file = ("a.png", expected.files[0])
    with serving(network, classifier, Limits()) as client, ThreadPoolExecutor(8) as pool:
        network.close()
        first = pool.submit(post_files, client, file)
        network.entered.wait(5)
        others = [pool.submit(post_files, client, file, path="/explain") for _ in range(7)]
        wait_for(client, "tlx_queue_images 7.0")
        with ThreadPoolExecutor(1) as another:
            others.append(another.submit(post_files, client, file, path="/explain"))
            wait_for(client, "tlx_queue_images 8.0")
            refused = post_files(client, file, path="/explain")
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
            assert refused.json()["error"] == "8 images are being explained already; try again in a second"
            network.gate.set()
        assert first.result(5).status_code == 200
        others[-1].result(5)
        assert post_files(client, file, path="/explain").status_code != 503  # there is room again


def test_images_of_a_client_that_has_gone_are_not_looked_at(
    network: Gated, classifier: Classifier, expected: Expected
) -> None:
    with serving(network, classifier, Limits()) as client, ThreadPoolExecutor(1) as pool:
        network.close()
        first = pool.submit(post_files, client, ("a.png", expected.files[0]))
        network.entered.wait(5)
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{client.base_url}/predict", files={"files": expected.files[1]}, timeout=0.3, trust_env=False)
        wait_for(client, 'tlx_requests_total{path="/predict",status="499"} 1.0')
        network.gate.set()
        assert first.result(5).status_code == 200
        assert post_files(client, ("a.png", expected.files[2])).status_code == 200
    assert network.seen == 2


class Breaking(Gated):
    """A network that runs out of memory when it is told to."""

    breaks = False

    def forward(self, canvases: torch.Tensor) -> torch.Tensor:
        if self.breaks:
            raise RuntimeError("out of memory")
        return super().forward(canvases)


def test_where_one_image_breaks_the_service_its_others_are_not_looked_at(
    classifier: Classifier, expected: Expected, monkeypatch: pytest.MonkeyPatch
) -> None:
    late, decode = threading.Event(), answering.decode

    def decode_late(content: bytes, *, name: str, most_pixels: int) -> Image.Image:
        assert name != "late.png" or late.wait(10)
        return decode(content, name=name, most_pixels=most_pixels)

    monkeypatch.setattr(answering, "decode", decode_late)
    network = Breaking(classifier.network)
    with serving(network, classifier, Limits()) as client:
        network.breaks = True
        files = [("a.png", expected.files[0]), ("late.png", expected.files[1])]
        assert post_files(client, *files).status_code == 500
        network.breaks = False
        late.set()
        assert post_files(client, ("b.png", expected.files[2])).status_code == 200
    assert network.seen == 1


def test_an_error_inside_is_told_as_one_and_the_next_is_answered(
    classifier: Classifier, expected: Expected, caplog: pytest.LogCaptureFixture
) -> None:
    network = Breaking(classifier.network)
    with serving(network, classifier, Limits()) as client:
        network.breaks = True
        answer = post_files(client, ("a.png", expected.files[0]))
        assert (answer.status_code, answer.json()) == (500, {"error": "the service has failed; its log says more"})
        assert answer.headers["x-content-type-options"] == "nosniff"
        network.breaks = False
        assert post_files(client, ("a.png", expected.files[0])).json()["predictions"][0]["label"] == expected.labels[0]
        wait_for(client, 'tlx_requests_total{path="/predict",status="500"} 1.0')
    assert "out of memory" in caplog.text


def test_a_network_that_cannot_work_is_never_ready(classifier: Classifier, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Gated):
        def forward(self, _canvases: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("out of memory")

    with pytest.raises(AssertionError, match="never"), serving(Broken(classifier.network), classifier, Limits()):
        pass
    assert "out of memory" in caplog.text


def test_a_network_that_gives_no_gradients_says_so(classifier: Classifier, expected: Expected) -> None:
    network = deepcopy(classifier.network)
    network.model.backbone.body.register_forward_hook(lambda _module, _given, returned: returned.detach())
    app = make_app(Served.of(replace(classifier, network=network), RUN / "model"), limits=Limits())
    with TestClient(app) as client:
        assert post_files(client, ("a.png", expected.files[0])).status_code == 200
        answer = post_files(client, ("a.png", expected.files[0]), path="/explain")
    assert answer.status_code == 422
    assert "its answers cannot be explained" in answer.json()["error"]
