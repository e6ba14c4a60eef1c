"""An export says what the model says, needs nothing of this project, and is not there if it says anything else."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import timm
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from timm.data import create_transform, resolve_data_config

from tests.digit_files import MODEL, RUN, write_digits
from tests.inference.test_saved_model import HEADS, make_model, save
from tl_experiments.build import build_classifier
from tl_experiments.cli.export import FORMATS
from tl_experiments.cli.verbs import main
from tl_experiments.data.transforms import centre_crop, draw
from tl_experiments.inference.drawing import decode_listed
from tl_experiments.inference.image_classifier import Classifier
from tl_experiments.inference.image_list import list_images
from tl_experiments.models.model import Model
from tl_experiments.use import export_formats

Export = Callable[..., tuple[int, Path]]


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("digits")
    write_digits(folder, 200)
    return folder


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    with build_classifier(MODEL, device="cpu") as built:
        return built


@pytest.fixture(scope="module")
def canvases(digits: Path, classifier: Classifier) -> torch.Tensor:
    """200 of them, uint8 (200, 3, 32, 32)."""
    images = [decode_listed(listed) for listed in list_images(str(digits))]
    return torch.from_numpy(np.stack([draw(image, classifier.description.canvas) for image in images]))


def export(run: Path, output: Path, *options: str) -> int:
    kind = output.suffix.removeprefix(".") or output.name
    return main(["export", str(run), "--format", kind, "--output", str(output), *options])


def manifest_of(output: Path) -> dict[str, Any]:
    beside = output.with_name(f"{output.name}.json")
    return json.loads((beside if output.is_file() else output / "export.json").read_text())


def normalised(classifier: Classifier, canvases: torch.Tensor) -> np.ndarray:
    network = classifier.network
    return network.normalise(centre_crop(canvases, network.crop)).numpy()


def test_onnx_gives_the_logits_of_batches_of_any_size(
    digits: Path, classifier: Classifier, canvases: torch.Tensor, tmp_path: Path
) -> None:
    output = tmp_path / "new" / "model.onnx"
    assert export(RUN, output, "--images", str(digits)) == 0
    assert [path.name for path in sorted(output.parent.iterdir())] == ["model.onnx", "model.onnx.json"]
    session = onnxruntime.InferenceSession(output)
    images, expected = normalised(classifier, canvases), classifier.logits(canvases).numpy()
    for batch in (1, 7, 200):
        [logits] = session.run(["logits"], {"images": images[:batch]})
        np.testing.assert_allclose(logits, expected[:batch], atol=1e-4 * np.abs(expected).max())
    manifest = manifest_of(output)
    assert manifest["input"]["shape"] == ["batch", 3, 32, 32]
    assert manifest["class_names"] == list("0123456789")
    assert manifest["check"]["images"] == 64
    assert manifest["check"]["max_difference"] <= 1e-4


def test_onnx_with_preprocessing_gives_the_probabilities_of_images(
    digits: Path, classifier: Classifier, canvases: torch.Tensor, tmp_path: Path
) -> None:
    output = tmp_path / "model.onnx"
    assert export(RUN, output, "--preprocess", "--images", str(digits)) == 0
    session = onnxruntime.InferenceSession(output)
    [found] = session.run(["probabilities"], {"images": canvases.permute(0, 2, 3, 1).contiguous().numpy()})
    expected = classifier.probabilities(canvases).numpy()
    assert np.abs(found - expected).max() < 1e-4
    assert np.array_equal(found.argmax(axis=1), expected.argmax(axis=1))
    resized = manifest_of(output)["check"]["resized_in_graph"]  # the files are 8 x 8
    assert resized["images"] == 64 + 6
    photo = Image.fromarray(load_sample_images().images[0])
    for image in (photo, photo.crop((100, 0, 300, 400))):
        [found] = session.run(["probabilities"], {"images": np.array(image)[None]})
        drawn = torch.from_numpy(draw(image, classifier.description.canvas))[None]
        assert np.abs(found - classifier.probabilities(drawn).numpy()).max() < 1e-2
    assert b"tl_experiments" not in output.read_bytes(), "nobody needs to know where the code was"


def test_pt2_runs_where_this_project_is_not(
    digits: Path, classifier: Classifier, canvases: torch.Tensor, tmp_path: Path
) -> None:
    output = tmp_path / "model.pt2"
    assert export(RUN, output, "--preprocess", "--images", str(digits)) == 0
    np.save(tmp_path / "images.npy", canvases.permute(0, 2, 3, 1).numpy())
    program = (
        "import sys, numpy, torch\n"
        "run = torch.export.load('model.pt2').module()\n"
        "images = torch.from_numpy(numpy.load('images.npy'))\n"
        "assert torch.allclose(run(images[:1]), run(images)[:1], atol=1e-6)\n"
        "numpy.save('found.npy', run(images).numpy())\n"
        "assert not [name for name in sys.modules if name.startswith(('tl_experiments', 'timm'))]\n"
    )
    subprocess.run([sys.executable, "-I", "-c", program], cwd=tmp_path, check=True)
    found, expected = np.load(tmp_path / "found.npy"), classifier.probabilities(canvases).numpy()
    assert np.abs(found - expected).max() < 1e-4
    assert np.array_equal(found.argmax(axis=1), expected.argmax(axis=1))


def test_timm_loads_its_folder(digits: Path, classifier: Classifier, canvases: torch.Tensor, tmp_path: Path) -> None:
    output = tmp_path / "timm"
    assert export(RUN, output, "--images", str(digits)) == 0
    model = timm.create_model(f"local-dir:{output}", pretrained=True).eval()
    with torch.inference_mode():
        logits = model(torch.from_numpy(normalised(classifier, canvases)))
    torch.testing.assert_close(logits, classifier.logits(canvases), atol=1e-4, rtol=1e-4)
    assert json.loads((output / "config.json").read_text())["label_names"] == list("0123456789")
    transform = create_transform(**resolve_data_config({}, model=model))
    image = Image.fromarray(load_sample_images().images[0])
    drawn = torch.from_numpy(draw(image, classifier.description.canvas))[None]
    np.testing.assert_allclose(transform(image).numpy(), normalised(classifier, drawn)[0], atol=1e-5)


def test_a_folder_of_the_model_alone_is_as_good_as_the_run(
    digits: Path, classifier: Classifier, canvases: torch.Tensor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "safetensors"
    (tmp_path / "safetensors.json").touch()  # nothing of a folder's
    assert export(RUN, output, "--images", str(digits)) == 0
    with build_classifier(output, device="cpu") as again:
        assert torch.equal(again.probabilities(canvases), classifier.probabilities(canvases))
    assert main(["predict", str(output), str(digits / "0"), "--output", str(tmp_path / "p.csv")]) == 0
    (output / "mine.txt").write_text("notes")
    assert export(RUN, output, "--images", str(digits), "--overwrite") == 2
    assert "is not overwritten (its files are not those of its manifest: mine.txt)" in capsys.readouterr().err
    assert (output / "mine.txt").read_text() == "notes"


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that brings an image, looks at mirror images, and crops its canvas."""
    folder = tmp_path_factory.mktemp("model")
    save(*make_model("test_resnet"), folder)
    return folder


@pytest.mark.slow
def test_mirror_images_are_in_the_graph_and_the_model_brings_its_own_images(examples: Path, tmp_path: Path) -> None:
    output = tmp_path / "model.pt2"
    assert export(examples, output, "--preprocess") == 0
    assert manifest_of(output)["tta"] == "flip"
    assert manifest_of(output)["check"]["images"] == 1
    assert manifest_of(output)["check"]["resized_in_graph"]["images"] == 4
    with build_classifier(examples, device="cpu") as model:
        side = model.description.canvas.size
        images = torch.randint(
            0, 256, (3, side, side, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
        )
        run = torch.export.load(output).module()
        torch.testing.assert_close(run(images), model.probabilities(images.permute(0, 3, 1, 2)))
        torch.testing.assert_close(run(images), run(images.flip(2)))


def test_help_names_the_formats_that_there_are() -> None:
    assert {*FORMATS} == {*export_formats.FORMATS}


def test_the_outside_is_told_in_one_line(
    examples: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(run: Path, output: str, *options: str) -> str:
        assert export(run, tmp_path / output, *options) == 2
        line = capsys.readouterr().err
        assert line.startswith("error: ")
        assert line.count("\n") == 1
        return line

    (tmp_path / "safetensors").mkdir()
    (tmp_path / "safetensors" / "mine.txt").touch()
    (tmp_path / "there.pt2").touch()
    assert "expected --images SOURCE" in refused(RUN, "a.pt2")
    assert "ends in .onnx" in refused(examples, "a/onnx")
    assert "there.pt2 is there already; expected another name, or --overwrite" in refused(examples, "there.pt2")
    assert "is no folder that was exported" in refused(examples, "safetensors", "--overwrite")
    for typed in (".", "~nobody-of-this-name/x", "x" * 300):
        assert main(["export", str(examples), "--format", "safetensors", "--output", typed]) == 2
        assert capsys.readouterr().err.startswith("error: ")
    assert "expected --format onnx or pt2" in refused(examples, "timm", "--preprocess")
    model, node = make_model("resnet18")
    save(model, node, tmp_path / "resnet18")
    assert "resnet18 is no network of timm; expected --format onnx, pt2 or" in refused(tmp_path / "resnet18", "timm")
    whole, node = make_model("test_resnet")
    mlp = torch.nn.Sequential()
    mlp.hidden, mlp.output = torch.nn.Linear(whole.backbone.feature_dim, 7), torch.nn.Linear(7, 3)
    save(Model(whole.backbone, mlp), node, tmp_path / "mlp", head=HEADS["mlp"])
    assert "this head is Mlp" in refused(tmp_path / "mlp", "timm")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert 'pip install "tl_experiments[export]"' in refused(examples, "a.onnx")
    assert (tmp_path / "there.pt2").stat().st_size == 0
    assert {path.name for path in tmp_path.iterdir()} == {"safetensors", "there.pt2", "resnet18", "mlp"}


@pytest.mark.parametrize("name", ["model.pt2", "safetensors"])
@pytest.mark.parametrize("fault", [lambda logits: logits + 0.01, lambda logits: logits * np.nan])
def test_what_says_anything_else_is_not_published(
    fault: Callable[[np.ndarray], np.ndarray],
    name: str,
    examples: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A copy of the model takes the place of a graph, which would take seconds; it is spoiled as it is loaded again."""
    output, kind = tmp_path / name, Path(name).suffix.removeprefix(".") or name
    form, whole = export_formats.FORMATS[kind], export_formats.FORMATS["safetensors"]

    def with_fault(fault: Callable[[np.ndarray], np.ndarray]) -> export_formats.Format:
        def read(trained: export_formats.Trained, _: Path) -> Callable[[np.ndarray], np.ndarray]:
            loaded = whole.read(trained, trained.folder)
            return lambda images: fault(loaded(images))

        def write(trained: export_formats.Trained, path: Path) -> None:
            whole.write(trained, path) if path.is_dir() else path.write_bytes(b"a graph")

        return replace(form, read=read, write=write)

    monkeypatch.setattr("tl_experiments.use.export.FORMATS", {kind: with_fault(lambda logits: logits)})
    assert export(examples, output) == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert before
    monkeypatch.setattr("tl_experiments.use.export.FORMATS", {kind: with_fault(fault)})
    assert export(examples, output, "--overwrite") == 1
    assert "differs from the model on 1 images: largest difference" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
