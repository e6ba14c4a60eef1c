"""Weights come from a cache or a file, fit or are refused in one line, and never run code."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision import models

from tl_experiments.data.transforms import Canvas, Normalise
from tl_experiments.inference.description import Description
from tl_experiments.inference.saved_model import save_model
from tl_experiments.models.backbone import Backbone
from tl_experiments.models.efficientnet_lite0 import efficientnet_lite0
from tl_experiments.models.head_kinds import linear_head
from tl_experiments.models.model import Model
from tl_experiments.models.timm_backbone import timm_backbone
from tl_experiments.models.torchvision_backbones import torchvision_backbone
from tl_experiments.models.weights import load_weights, read_weights
from tl_experiments.runtime.errors import WeightsError

URL = "https://download.pytorch.org/models/resnet18-f37072fd.pth"
FILE = "resnet18-f37072fd.pth"
Tensors = dict[str, torch.Tensor]


class Code:
    """A pickle that makes a file where it is read."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.trace),)


def resnet18(weights: str | None) -> Backbone:
    return torchvision_backbone(name="resnet18", weights=weights, image_size=32, preferred_size=None, seed=0)


def tiny(weights: str | None, *, seed: int = 0) -> Backbone:
    """A ResNet of 0.4 million parameters."""
    return timm_backbone(name="test_resnet", weights=weights, image_size=32, preferred_size=None, seed=seed)


@pytest.fixture(scope="module")
def theirs() -> Tensors:
    """Weights of the tiny network from elsewhere, with a head of three classes."""
    body = tiny(None, seed=1).body
    for name, buffer in body.named_buffers():
        buffer.copy_(torch.full_like(buffer, 3 if name.endswith("num_batches_tracked") else 1.5))
    return body.state_dict() | {"fc.weight": torch.zeros(3, 96), "fc.bias": torch.zeros(3)}


def same(backbone: Backbone, expected: Mapping[str, torch.Tensor]) -> bool:
    own = backbone.body.state_dict()
    return bool(own) and all(torch.equal(tensor, expected[name]) for name, tensor in own.items())


def refusal(build: Callable[[], object]) -> str:
    """The message with which weights are refused, of one line."""
    with pytest.raises(WeightsError) as caught:
        build()
    message = str(caught.value)
    assert message.startswith("backbone.weights=")
    assert "\n" not in message
    return message


def test_default_weights_come_from_pytorchs_cache(torch_cache: Path) -> None:
    torch.manual_seed(7)
    network = models.resnet18(weights=None)
    torch.save(network.state_dict(), torch_cache / FILE)
    backbone = resnet18("default")
    assert same(backbone, network.state_dict())
    assert not same(resnet18(None), network.state_dict())
    assert backbone.weights_id == "ResNet18_Weights.IMAGENET1K_V1"


def test_without_cache_and_network_one_line_names_the_ways_out(torch_cache: Path) -> None:
    message = refusal(lambda: resnet18("default"))
    assert URL in message
    assert f"put it at {torch_cache / FILE}" in message
    assert "backbone.weights=PATH" in message
    assert "backbone=efficientnet_lite0 needs no download" in message


@pytest.mark.parametrize("content", [b"", b"garbage" * 50, b"PK\x03\x04" + b"garbage" * 50])
def test_a_damaged_file_in_the_cache_is_named(torch_cache: Path, content: bytes) -> None:
    (torch_cache / FILE).write_bytes(content)
    assert str(torch_cache / FILE) in refusal(lambda: resnet18("default"))


def test_half_a_file_in_the_cache_is_named(torch_cache: Path) -> None:
    torch.save({"a": torch.zeros(10_000)}, torch_cache / FILE)
    content = (torch_cache / FILE).read_bytes()
    (torch_cache / FILE).write_bytes(content[: len(content) // 2])
    assert str(torch_cache / FILE) in refusal(lambda: resnet18("default"))


def test_a_file_in_the_cache_cannot_run_code(torch_cache: Path, tmp_path: Path) -> None:
    torch.save({"a": Code(tmp_path / "ran")}, torch_cache / FILE)
    refusal(lambda: resnet18("default"))
    assert not (tmp_path / "ran").exists()


def test_a_file_in_the_cache_that_holds_no_state_dict_is_refused(torch_cache: Path) -> None:
    torch.save([1, 2], torch_cache / FILE)
    assert f"{torch_cache / FILE}: holds no state dict" in refusal(lambda: resnet18("default"))


def test_the_auxiliary_head_of_inception_is_left_out() -> None:
    with torch.device("meta"):
        body = torchvision_backbone(
            name="inception_v3", weights=None, image_size=None, preferred_size=None, seed=0
        ).body
    tensors = models.inception_v3(weights=None, init_weights=False).state_dict()
    assert any(name.startswith("AuxLogits.") for name in tensors)
    body.to_empty(device="cpu")
    load_weights(body, tensors, heads=("fc", "AuxLogits"), source="default")
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in body.state_dict().items())


def saved_as_safetensors(tensors: Tensors, folder: Path) -> Path:
    save_file(tensors, folder / "mine.safetensors")
    return folder / "mine.safetensors"


def saved_as(make: Callable[[Tensors], object], name: str) -> Callable[[Tensors, Path], Path]:
    def save(tensors: Tensors, folder: Path) -> Path:
        torch.save(make(tensors), folder / name)
        return folder / name

    return save


def prefixed(prefix: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


@pytest.mark.parametrize(
    "save",
    [
        pytest.param(saved_as_safetensors, id="safetensors"),
        pytest.param(saved_as(dict, "mine.pth"), id="pth"),
        pytest.param(saved_as(dict, "mine.pt"), id="pt"),
        pytest.param(saved_as(lambda t: {"state_dict": t, "epoch": 3}, "a.pth"), id="state_dict"),
        pytest.param(saved_as(lambda t: {"model": t, "optimizer": {}}, "a.pth"), id="model"),
        pytest.param(saved_as(lambda t: {"model_state_dict": t, "loss": 0.1}, "a.pth"), id="model_state_dict"),
        pytest.param(saved_as(prefixed("module."), "a.pth"), id="module."),
        pytest.param(saved_as(lambda t: {"state_dict": prefixed("module.model.")(t)}, "a.pth"), id="both"),
        pytest.param(saved_as(lambda t: {n: v for n, v in t.items() if "fc" not in n}, "a.pth"), id="no head"),
    ],
)
def test_a_file_is_loaded_but_for_its_head(
    theirs: Tensors, tmp_path: Path, save: Callable[[Tensors, Path], Path]
) -> None:
    path = save(theirs, tmp_path)
    backbone = tiny(str(path))
    assert same(backbone, theirs)
    assert backbone.weights_id == f"file:{path.name}"


def test_a_home_folder_is_expanded(theirs: Tensors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    saved_as_safetensors(theirs, tmp_path)
    assert same(tiny("~/mine.safetensors"), theirs)


def test_files_from_before_batches_were_counted_load(theirs: Tensors, tmp_path: Path) -> None:
    old = {name: tensor for name, tensor in theirs.items() if not name.endswith("num_batches_tracked")}
    own = tiny(str(saved_as_safetensors(old, tmp_path))).body.state_dict()
    assert all(torch.equal(own[name], tensor) for name, tensor in old.items() if not name.startswith("fc."))


def test_a_file_for_a_torchvision_network_is_loaded_too(tmp_path: Path) -> None:
    network = models.resnet18(weights=None, num_classes=3)
    backbone = resnet18(str(saved_as_safetensors(network.state_dict(), tmp_path)))
    assert same(backbone, network.state_dict())


def test_what_does_not_fit_is_listed_by_name(theirs: Tensors, tmp_path: Path) -> None:
    before = tiny(None).body.state_dict()
    other = {name: tensor for name, tensor in theirs.items() if name != "layer1.0.conv1.weight"}
    other["conv1.0.weight"] = torch.zeros(2, 3)
    other["surplus.weight"] = torch.zeros(1)
    path = saved_as_safetensors(other, tmp_path)
    message = refusal(lambda: tiny(str(path)))
    assert f"backbone.weights={path}: " in message
    assert "1 missing: layer1.0.conv1.weight" in message
    assert "1 unexpected: surplus.weight" in message
    assert "1 of another shape: conv1.0.weight (2, 3) instead of (" in message
    own = tiny(None)
    with pytest.raises(WeightsError):
        load_weights(own.body, other, heads=("fc",), source="mine")
    assert same(own, before), "a refused file leaves the network as it was"


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"surplus.weight": torch.zeros(1)}, "1 unexpected: surplus.weight"),
        ({"conv1.0.weight": torch.zeros(2, 3)}, "1 of another shape: conv1.0.weight"),
    ],
)
def test_one_problem_is_enough(theirs: Tensors, tmp_path: Path, changes: Tensors, problem: str) -> None:
    path = saved_as_safetensors(theirs | changes, tmp_path)
    assert f"({problem}" in refusal(lambda: tiny(str(path)))


def test_of_many_names_some_are_listed() -> None:
    message = refusal(lambda: load_weights(tiny(None).body, {}, heads=("fc",), source="mine"))
    count = sum(not name.endswith("num_batches_tracked") for name in tiny(None).body.state_dict())
    assert f"{count} missing: " in message
    assert ", ..." in message
    assert len(message) < 300


def test_a_pickle_with_code_is_refused_and_does_not_run(tmp_path: Path) -> None:
    path = tmp_path / "evil.pth"
    torch.save({"state_dict": {"a": Code(tmp_path / "ran")}}, path)
    assert f"backbone.weights={path}: refused" in refusal(lambda: tiny(str(path)))
    assert not (tmp_path / "ran").exists()
    torch.load(path, weights_only=False)
    assert (tmp_path / "ran").exists(), "the file would have run code"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert f"backbone.weights={tmp_path / 'absent.pth'}: no such file" in refusal(
        lambda: tiny(str(tmp_path / "absent.pth"))
    )
    assert "no such file" in refusal(lambda: tiny(str(tmp_path)))


@pytest.mark.parametrize("name", ["mine.safetensors", "mine.pth"])
@pytest.mark.parametrize("damage", ["half", "empty", "text"])
def test_a_damaged_file_is_named(theirs: Tensors, tmp_path: Path, name: str, damage: str) -> None:
    path = tmp_path / name
    save_file(theirs, path) if path.suffix == ".safetensors" else torch.save(theirs, path)
    content = path.read_bytes()
    path.write_bytes({"half": content[: len(content) // 2], "empty": b"", "text": b"<html>not found\n</html>"}[damage])
    message = refusal(lambda: tiny(str(path)))
    assert f"backbone.weights={path}: " in message
    assert ".safetensors, .pth, .pt file of tensors" in message


@pytest.mark.parametrize(
    "content",
    [
        [1, 2],
        {"epoch": 3},
        {"state_dict": {"a": 1}},
        torch.zeros(3),
        pytest.param({0: torch.zeros(1)}, id="keys that are no names"),
    ],
)
def test_a_file_without_a_state_dict_is_refused(tmp_path: Path, content: object) -> None:
    path = tmp_path / "mine.pth"
    torch.save(content, path)
    assert f"{path}: holds no state dict" in refusal(lambda: tiny(str(path)))


def test_reading_gives_the_tensors_as_they_were_saved(theirs: Tensors, tmp_path: Path) -> None:
    read = read_weights(saved_as_safetensors(theirs, tmp_path))
    assert read.keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in read.items())


BUILDERS = {
    "resnet18": torchvision_backbone,
    "mobilenet_v3_large": torchvision_backbone,
    "efficientnet_lite0": efficientnet_lite0,
    "test_resnet": timm_backbone,
    "test_vit": timm_backbone,
    "test_convnext": timm_backbone,  # its own norm is called head.norm
}


@pytest.mark.parametrize("name", BUILDERS)
def test_an_exported_model_can_be_the_weights_of_a_backbone(name: str, tmp_path: Path) -> None:
    def build(weights: str | None, seed: int) -> Backbone:
        return BUILDERS[name](name=name, weights=weights, image_size=None, preferred_size=None, seed=seed)

    trained = build(None, 1)
    with torch.no_grad():
        for child in trained.modules():
            if isinstance(child, nn.BatchNorm2d):
                child.running_mean.normal_()
    model = Model(trained, linear_head(feature_dim=trained.feature_dim, num_classes=3, seed=0))
    description = Description(
        backbone={"name": name, "image_size": None},
        head={"_target_": "tl_experiments.models.head_kinds.Linear", "dropout": 0.0},
        class_names=("a", "b", "c"),
        canvas=Canvas(size=32, crop=32, interpolation="bilinear"),
        normalise=Normalise((0, 0, 0), (1, 1, 1)),
        mirrors=False,
        temperature=1.0,
        weights_sha256="",
        versions={},
        examples=(),
    )
    save_model(model, tmp_path / "model", description=description, examples=(), card="")
    backbone = build(str(tmp_path / "model" / "model.safetensors"), 2)
    assert same(backbone, trained.body.state_dict())
    assert backbone.weights_id == "file:model.safetensors"
