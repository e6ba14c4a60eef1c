"""What the service says is what the model says, in the shapes that it describes."""

import io
import json
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.serve.conftest import RUN, Expected, Start, post_files


def test_answers_are_those_of_the_classifier(client: httpx.Client, expected: Expected) -> None:
    files = [(f"{number}.png", file) for number, file in enumerate(expected.files)]
    sha256 = json.loads((RUN / "model" / "model.json").read_text())["weights_sha256"]
    found = []
    for first in range(0, len(files), 16):
        answer = post_files(client, *files[first : first + 16], path="/predict?top_k=10").json()
        assert answer["model"]["weights_sha256"] == sha256
        found += answer["predictions"]
    assert [one["filename"] for one in found] == [name for name, _ in files]
    assert [one["label"] for one in found] == expected.labels
    for one, probabilities in zip(found, expected.probabilities, strict=True):
        probs = {top["label"]: top["prob"] for top in one["top"]}
        assert np.abs([probs[str(digit)] for digit in range(10)] - probabilities).max() < 1e-4
        assert one["prob"] == max(probs.values()) == one["top"][0]["prob"]


@pytest.mark.parametrize("kind", ["image/png", "IMAGE/JPEG; q=1", "application/octet-stream"])
def test_the_body_may_be_the_image(kind: str, client: httpx.Client, expected: Expected) -> None:
    """Whatever it says that it is: the bytes tell."""
    answer = client.post("/predict?top_k=1", content=expected.files[0], headers={"Content-Type": kind}).json()
    [found] = answer["predictions"]
    assert (found["filename"], found["label"], len(found["top"])) == (None, expected.labels[0], 1)


def test_one_bad_image_of_several_has_its_error_beside_the_answers(client: httpx.Client, expected: Expected) -> None:
    answer = post_files(client, ("a.png", expected.files[0]), ("b.png", b"no image"), ("c.png", expected.files[1]))
    first, bad, last = answer.json()["predictions"]
    assert answer.status_code == 200
    assert [first["label"], last["label"]] == expected.labels[:2]
    assert bad["filename"] == "b.png"
    assert bad["error"].startswith("b.png: cannot be read as an image (damaged, or none of BMP")


def test_an_explanation_is_a_picture_that_depends_on_the_class(client: httpx.Client, expected: Expected) -> None:
    pictures = []
    for label in ("", "?label=3", "?label=7"):
        answer = post_files(client, ("a.png", expected.files[0]), path=f"/explain{label}")
        assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
        assert answer.headers["explanation-shows"] in ("gradcam", "nothing")
        pictures.append(np.asarray(Image.open(io.BytesIO(answer.content)).convert("RGB")))
    assert (pictures[1] != pictures[2]).any()


def test_it_says_that_it_is_alive_and_ready(client: httpx.Client) -> None:
    assert client.get("/health").json() == {"status": "alive"}
    while (answer := client.get("/ready")).status_code == 503:
        assert answer.headers["retry-after"] == "1"
        time.sleep(0.05)
    assert answer.json() == {"status": "ready"}


def test_the_model_is_described(client: httpx.Client) -> None:
    told = client.get("/model").json()
    assert told["class_names"] == [str(digit) for digit in range(10)]
    assert told["input"]["centre_crop"] == 32
    assert told["scores"]["test/acc"] == json.loads((RUN / "result.json").read_text())["test/acc"]
    assert told["limits"]["images"] == 32
    assert told["examples"] == []  # format 2 had none


def test_a_model_without_its_run_is_served_by_its_folders_name(start: Start, tmp_path: Path) -> None:
    (tmp_path / "digits").mkdir()
    (tmp_path / "result.json").write_text((RUN / "result.json").read_text().replace("60e346", "000000"))
    with start(folder=tmp_path / "digits") as url:
        told = httpx.get(f"{url}/model", trust_env=False).json()
    assert (told["name"], told["scores"]) == ("digits", {})


def test_openapi_describes_bodies_answers_and_errors(client: httpx.Client) -> None:
    api = client.get("/openapi.json").json()
    assert set(api["paths"]) == {"/predict", "/explain", "/health", "/ready", "/model", "/metrics", "/examples/{name}"}
    predict = api["paths"]["/predict"]["post"]
    form = predict["requestBody"]["content"]["multipart/form-data"]["schema"]["properties"]["files"]
    assert (form["type"], form["maxItems"], form["items"]["format"]) == ("array", 32, "binary")
    assert {"image/*", "application/octet-stream"} < set(predict["requestBody"]["content"])
    assert {"200", "413", "415", "422", "503", "504"} <= set(predict["responses"])
    [top_k] = predict["parameters"]
    assert (top_k["schema"]["minimum"], top_k["schema"]["maximum"], top_k["schema"]["default"]) == (1, 10, 5)


def test_metrics_count_requests_images_and_batches(client: httpx.Client, expected: Expected) -> None:
    def metric(line: str) -> float:
        found = [row for row in client.get("/metrics").text.splitlines() if row.startswith(f"{line} ")]
        return float(found[0].rpartition(" ")[2]) if found else 0.0

    lines = [
        'tlx_requests_total{path="/predict",status="200"}',
        'tlx_requests_total{path="other",status="404"}',
        'tlx_images_total{outcome="classified"}',
        'tlx_images_total{outcome="refused"}',
        "tlx_batch_images_sum",
        'tlx_request_seconds_count{path="/predict"}',
    ]
    before = [metric(line) for line in lines]
    post_files(client, ("a.png", expected.files[0]), ("b.png", expected.files[1]), ("c.png", b"x"))
    client.get("/made/up")
    assert [metric(line) - was for line, was in zip(lines, before, strict=True)] == [1, 1, 2, 1, 2, 1]
    assert metric("tlx_queue_images") == 0
