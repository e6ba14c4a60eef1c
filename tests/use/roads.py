"""One set of images by every road from a run to an answer, which must be the same answer.

    python -m tests.use.roads RUN IMAGES

The roads are predict, ONNX and pt2 (with and without preprocessing), the HTTP service, and MLflow. Images are files of
any size; where a graph has no preprocessing, they are drawn, mirrored and calibrated as the model's description says.
Those that are in the test split of the run are compared with what it said of them then, too.
"""

import argparse
import csv
import json
import math
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx
import mlflow
import numpy as np
import onnxruntime
import pandas as pd
import pyarrow.parquet as pq
import torch
import yaml
from PIL import Image

from tests.serve.forked import serving
from tl_experiments.cli.verbs import main
from tl_experiments.data.decoding import decode
from tl_experiments.data.transforms import centre_crop, draw
from tl_experiments.inference.description import Description
from tl_experiments.inference.image_list import list_images
from tl_experiments.models.mirrors import mean_logits
from tl_experiments.tracking.address import VARIABLE, absolute_uri
from tl_experiments.tracking.named_run import model_folder, run_folder

AT_ONCE = 20  # images of a request


class Roads:
    """A run, images, and the probabilities float32 (N, K) that each road gives."""

    def __init__(self, run: str, images: str, desk: Path) -> None:
        """Draw the images; files that are made on the way go to a desk."""
        self.run, self.images, self.desk = run, images, desk
        self.description = Description.load(model_folder(run))
        self.paths = [Path(listed.name) for listed in list_images(images)]
        canvases = [draw(self._image(path), self.description.canvas) for path in self.paths]
        self.canvases = torch.from_numpy(np.stack(canvases))

    def _image(self, path: Path) -> Image.Image:
        return decode(path.read_bytes(), name=str(path))

    def all(self) -> dict[str, Callable[[], np.ndarray]]:
        graphs = {"ONNX": self.onnx, "pt2": self.pt2}
        return {
            "predict": self.predict,
            **{name: lambda by=by: by(preprocess=False) for name, by in graphs.items()},
            **{f"{name}, preprocessing": lambda by=by: by(preprocess=True) for name, by in graphs.items()},
            "HTTP": self.http,
            "MLflow": self.mlflow,
        }

    def predict(self) -> np.ndarray:
        output = self.desk / "predictions.parquet"
        assert main(["predict", self.run, self.images, "--output", str(output), "--all-probs"]) == 0
        table = pq.read_table(output)
        assert table["filename"].to_pylist() == [str(path) for path in self.paths]
        return np.stack([table[f"prob[{name}]"].to_numpy() for name in self.description.class_names], axis=1)

    def onnx(self, *, preprocess: bool) -> np.ndarray:
        path = self._export("onnx", preprocess=preprocess)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        [given] = session.get_inputs()
        return self._through(lambda batch: session.run(None, {given.name: batch.numpy()})[0], preprocess=preprocess)

    def pt2(self, *, preprocess: bool) -> np.ndarray:
        module = torch.export.load(self._export("pt2", preprocess=preprocess)).module()
        with torch.inference_mode():
            return self._through(lambda batch: module(batch).numpy(), preprocess=preprocess)

    def _export(self, form: str, *, preprocess: bool) -> Path:
        path = self.desk / f"{'whole' if preprocess else 'network'}.{form}"
        options = ["--preprocess"] if preprocess else []
        assert main(["export", self.run, "--format", form, "--output", str(path), *options]) == 0
        return path

    def _through(self, graph: Callable[[torch.Tensor], np.ndarray], *, preprocess: bool) -> np.ndarray:
        """Give a graph all images: one by one as they are, each of its own size, or as the input of the network."""
        if preprocess:
            raw = (torch.from_numpy(np.array(self._image(path)))[None] for path in self.paths)
            return np.concatenate([graph(image) for image in raw])
        crops = centre_crop(self.canvases, self.description.canvas.crop)
        seen = [crops, crops.flip(-1)] if self.description.mirrors else [crops]
        logits, *mirrored = (torch.from_numpy(graph(self.description.normalise(images))) for images in seen)
        logits = mean_logits(logits, *mirrored) if mirrored else logits
        return (logits / self.description.temperature).softmax(dim=1).numpy()

    def own_test(self) -> tuple[str, dict[int, str]]:
        """Return the precision of the run's own test, and what was predicted there of the images that are here too."""
        folder = run_folder(self.run)
        config = yaml.safe_load((folder / "config.yaml").read_text())
        root = Path(config["dataset"]["root"]).expanduser()
        root = root.parent if root.is_file() else root
        with (folder / "predictions.csv").open(newline="") as file:
            predicted = {(root / row["image"]).resolve(): row["predicted"] for row in csv.DictReader(file)}
        here = {at: path.resolve() for at, path in enumerate(self.paths)}
        found = {at: predicted[path] for at, path in here.items() if path in predicted}
        return config["runtime"]["infer_precision"], found

    def http(self) -> np.ndarray:
        with serving(self.run) as (_, address), httpx.Client(base_url=address, trust_env=False, timeout=60) as client:
            told = [answer for start in range(0, len(self.paths), AT_ONCE) for answer in self._post(client, start)]
        return self._in_order([{row["label"]: row["prob"] for row in answer["top"]} for answer in told])

    def _post(self, client: httpx.Client, start: int) -> list[dict]:
        files = [("files", (path.name, path.read_bytes())) for path in self.paths[start : start + AT_ONCE]]
        answer = client.post("/predict", files=files, params={"top_k": len(self.description.class_names)})
        return answer.raise_for_status().json()["predictions"]

    def mlflow(self) -> np.ndarray:
        run_id = json.loads((run_folder(self.run) / "result.json").read_text())["run_id"]
        count = len(self.description.class_names)
        images = pd.DataFrame({"image": [path.read_bytes() for path in self.paths]})
        told = mlflow.pyfunc.load_model(f"runs:/{run_id}/model").predict(images, params={"top_k": count})
        ranks = ["", *(f"_{rank}" for rank in range(2, count + 1))]
        return self._in_order(
            [{row[f"label{rank}"]: row[f"prob{rank}"] for rank in ranks} for row in told.to_dict("records")]
        )

    def _in_order(self, answers: list[dict[str, float]]) -> np.ndarray:
        return np.array([[answer[name] for name in self.description.class_names] for answer in answers], np.float32)


@dataclass(frozen=True)
class Agreement:
    """How far a road agrees with others.

    Attributes:
        labels: share of labels that predict says too.
        difference: the largest one of a probability from predict's.
        own_test: share of labels of the run's own test that it says too; NaN where none of its images is here.
    """

    labels: float
    difference: float
    own_test: float


def compare(roads: Roads) -> dict[str, Agreement]:
    """Compare each road with predict, and with the run's own test."""
    said: dict[str, Agreement] = {}
    names, (_, tested) = np.array(roads.description.class_names), roads.own_test()
    expected: np.ndarray | None = None
    for name, road in roads.all().items():
        found = road()
        expected = found if expected is None else expected
        labels = found.argmax(axis=1) == expected.argmax(axis=1)
        same = names[found.argmax(axis=1)[list(tested)]] == list(tested.values())
        own_test = float(same.mean()) if tested else math.nan
        said[name] = Agreement(float(labels.mean()), float(np.abs(found - expected).max()), own_test)
    return said


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("images")
    typed = parser.parse_args()
    os.environ[VARIABLE] = absolute_uri(None)  # MLflow's own default is another
    with tempfile.TemporaryDirectory() as desk:
        roads = Roads(typed.run, typed.images, Path(desk))
        precision, tested = roads.own_test()
        print(f"{len(roads.paths)} images, {len(tested)} of them of the run's own test ({precision}), {typed.run}")
        for name, found in compare(roads).items():
            print(
                f"{name:24} labels {found.labels:.2%} as predict's, {found.own_test:.2%} as the run's own test, "
                f"probabilities within {found.difference:.1e}"
            )
