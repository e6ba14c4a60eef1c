"""Images of many requests share batches, and no request gets, or waits for, what is another's."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import httpx
import numpy as np
import pytest
import torch
from PIL import Image

from tests.data.golden import encoded
from tests.serve.conftest import post_files
from tl_experiments.data.transforms import draw
from tl_experiments.inference.image_classifier import Classifier
from tl_experiments.serve.batching import Batches
from tl_experiments.serve.limits import Refused

CLIENTS = 16


def canvas(value: int) -> np.ndarray:
    return np.full((3, 2, 2), value, dtype=np.uint8)


class Network:
    """Gives back the value of each canvas; waits at a gate."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.sizes: list[int] = []

    def __call__(self, canvases: torch.Tensor) -> torch.Tensor:
        self.gate.wait(10)
        self.sizes.append(len(canvases))
        if 255 in canvases:
            raise RuntimeError("out of memory")
        return canvases[:, 0, 0, :1].float()

    def batches(self, *, most_waiting: int = 100, wait_seconds: float = 0.0) -> Batches:
        return Batches(
            self, batch_size=4, most_waiting=most_waiting, wait_seconds=wait_seconds, notice=lambda _size: None
        )


def add(batches: Batches, value: int):
    with batches.place() as place:
        return place.take(canvas(value))


@pytest.fixture
def network() -> Network:
    return Network()


def test_what_waits_while_the_network_is_busy_becomes_one_batch(network: Network) -> None:
    network.gate.clear()
    with network.batches() as batches:
        first = add(batches, 0)
        while not first.running():
            time.sleep(0.001)
        others = [add(batches, value) for value in range(1, 7)]
        network.gate.set()
        assert [future.result(5).item() for future in (first, *others)] == list(range(7))
    assert network.sizes == [1, 4, 2]


def test_a_lone_image_does_not_wait_for_company(network: Network) -> None:
    with network.batches(wait_seconds=5.0) as batches:
        start = time.monotonic()
        add(batches, 1).result(5)
        assert time.monotonic() - start < 1.0


def test_a_batch_waits_a_little_for_images_that_are_being_decoded(network: Network) -> None:
    with network.batches(wait_seconds=5.0) as batches:
        with batches.place() as coming:
            first = add(batches, 1)
            time.sleep(0.05)
            assert not first.done()
            second = coming.take(canvas(2))
        assert (first.result(5).item(), second.result(5).item()) == (1, 2)
        with batches.place():  # it turns out to be no image
            third = add(batches, 3)
        assert third.result(1).item() == 3
    assert network.sizes == [2, 1]
    with network.batches(wait_seconds=0.05) as batches, batches.place():
        assert add(batches, 4).result(1).item() == 4


def test_who_does_not_wait_any_more_is_left_out(network: Network) -> None:
    network.gate.clear()
    with network.batches(most_waiting=4) as batches:
        first = add(batches, 0)
        while not first.running():
            time.sleep(0.001)
        others = [add(batches, value) for value in range(1, 5)]
        assert others[0].cancel()
        add(batches, 5)  # in the place of that one
        network.gate.set()
    assert network.sizes == [1, 4]
    assert [future.result(0).item() for future in others[1:]] == [2, 3, 4]


def test_a_full_queue_says_so_and_counts_those_that_are_being_decoded(network: Network) -> None:
    network.gate.clear()
    with network.batches(most_waiting=3) as batches:
        first = add(batches, 0)
        while not first.running():
            time.sleep(0.001)
        with ExitStack() as stack:
            stack.enter_context(batches.place())
            add(batches, 1), add(batches, 2)
            with pytest.raises(Refused, match="3 images are waiting already") as caught, batches.place():
                pass
        assert (caught.value.status, caught.value.headers["Retry-After"]) == (503, "1")
        with batches.place():  # the one that was given up
            pass
        network.gate.set()


def test_a_failure_is_told_to_those_whom_it_hits_and_the_next_are_answered(network: Network) -> None:
    with network.batches() as batches:
        with pytest.raises(RuntimeError, match="out of memory"):
            add(batches, 255).result(5)
        assert add(batches, 1).result(5).item() == 1


def test_other_work_has_the_network_for_itself_in_its_turn(network: Network) -> None:
    network.gate.clear()
    told: list[int] = []
    with network.batches() as batches:
        futures = [add(batches, 0)]
        while not futures[0].running():
            time.sleep(0.001)
        futures += [add(batches, 1), add(batches, 2)]
        with batches.place() as place:
            alone = place.take_alone(lambda: told.append(len(network.sizes)) or "done")
        futures.append(add(batches, 3))
        network.gate.set()
        assert alone.result(5) == "done"
    assert (network.sizes, told) == ([1, 2, 1], [2])


def test_each_of_many_clients_gets_the_answer_to_its_own_image(client: httpx.Client, classifier: Classifier) -> None:
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)) for _ in range(CLIENTS)]
    canvases = torch.from_numpy(np.stack([draw(image, classifier.description.canvas) for image in images]))
    expected = classifier.probabilities(canvases).numpy()
    distances = np.abs(expected[:, None] - expected[None]).max(axis=-1)
    assert (distances + np.eye(CLIENTS)).min() > 1e-3  # another's answer would be seen

    def ask(number: int) -> float:
        """Return the largest error of the probabilities of one image, asked for again and again."""
        file, errors = ("x.png", encoded(images[number], "PNG")), []
        with httpx.Client(base_url=client.base_url, trust_env=False, timeout=30) as own:
            for _ in range(6):
                [found] = post_files(own, file, path="/predict?top_k=10").json()["predictions"]
                probs = {top["label"]: top["prob"] for top in found["top"]}
                errors.append(np.abs([probs[str(digit)] for digit in range(10)] - expected[number]).max())
        return max(errors)

    with ThreadPoolExecutor(CLIENTS) as pool:
        assert max(pool.map(ask, range(CLIENTS))) < 1e-4
    rows = dict(line.rsplit(" ", 1) for line in client.get("/metrics").text.splitlines() if "tlx_batch_images" in line)
    assert float(rows["tlx_batch_images_count"]) * 1.5 < float(rows["tlx_batch_images_sum"]) == CLIENTS * 6
