"""A trained model's folder is enough to use it, is never half there, and nothing that it says can run code."""

import json
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra.utils import get_class, get_method
from torch import nn

from tl_experiments.build import build_trained_model
from tl_experiments.config.errors import ConfigError
from tl_experiments.data.transforms import Normalise, make_canvas
from tl_experiments.inference.description import Description
from tl_experiments.inference.export_folder import copy_model
from tl_experiments.inference.saved_model import save_model
from tl_experiments.models.backbone import Backbone
from tl_experiments.models.digest import tensors_sha256
from tl_experiments.models.heads import HeadBank
from tl_experiments.models.model import Model
from tl_experiments.runtime.errors import SettingError, UserError

CLASS_NAMES = ("cat", "dog", "naïve ✓")
EXAMPLE = np.random.default_rng(0).integers(0, 256, (3, 40, 40), dtype=np.uint8)
KINDS = "tl_experiments.models.head_kinds."
HEAD: dict[str, Any] = {"_target_": f"{KINDS}Linear", "dropout": 0.0}
HEADS: dict[str, dict[str, Any]] = {
    "dropout": {"_target_": f"{KINDS}Linear", "dropout": 0.5},
    "mlp": {"_target_": f"{KINDS}Mlp", "dropout": 0.1, "hidden_dim": 7},
    "cosine": {"_target_": f"{KINDS}Cosine", "dropout": 0.0, "scale": 5.0, "learn_scale": True},
    "cosine, fixed": {"_target_": f"{KINDS}Cosine", "dropout": 0.0, "scale": 5.0, "learn_scale": False},
    "neighbours": {"_target_": "tl_experiments.models.neighbours.Neighbours", "num_images": 9, "most": 3}
    | {"temperature": 0.1},
}
BACKBONES = {
    "efficientnet_lite0": ("tl_experiments.models.efficientnet_lite0.efficientnet_lite0", "default"),
    "resnet18": ("tl_experiments.models.torchvision_backbones.torchvision_backbone", None),
    "test_resnet": ("tl_experiments.models.timm_backbone.timm_backbone", None),
}


def build(node: dict[str, Any], *, weights: str | None, seed: int) -> Backbone:
    return get_method(node["_target_"])(
        name=node["name"], weights=weights, image_size=node["image_size"], preferred_size=None, seed=seed
    )


@cache
def make_model(name: str, *, seed: int = 0) -> tuple[Model, dict[str, Any]]:
    """A model as training leaves it: its head shares the storage of a bank, and its statistics have moved."""
    target, weights = BACKBONES[name]
    node = {"_target_": target, "name": name, "weights": weights, "image_size": 40}
    backbone = build(node, weights=weights, seed=seed)
    bank = HeadBank(feature_dim=backbone.feature_dim, num_classes=len(CLASS_NAMES), seeds=(1, 2))
    model = Model(backbone.to(memory_format=torch.channels_last), bank.head(1))
    with torch.no_grad():
        model.train()(torch.randn(4, 3, 40, 40, generator=torch.Generator().manual_seed(0)))
    return model.eval(), node


def save(model: Model, node: dict[str, Any], folder: Path, *, head: dict[str, Any] = HEAD) -> Description:
    spec = model.backbone.input_spec
    description = Description(
        backbone={**node, "weights": None, "feature_dim": model.backbone.feature_dim, "pretrained_weights": "random"},
        head=head,
        class_names=CLASS_NAMES,
        canvas=make_canvas(size=spec.size, crop_pct=spec.crop_pct, interpolation=spec.interpolation),
        normalise=Normalise(spec.mean, spec.std),
        mirrors=True,
        temperature=1.25,
        weights_sha256=tensors_sha256(model.state_dict()),
        versions={"torch": torch.__version__},
        examples=("example-1.png",),
    )
    save_model(model, folder, description=description, examples=[EXAMPLE], card="# a card\n")
    return description


def load(folder: Path) -> Model:
    return build_trained_model(folder, description=Description.load(folder))


def edit(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    said = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    change(said)
    (folder / "model.json").write_text(json.dumps(said), encoding="utf-8")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "model"
    save(*make_model("test_resnet"), folder)
    return folder


@pytest.fixture
def copy(saved: Path, tmp_path: Path) -> Path:
    for file in saved.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


@pytest.mark.parametrize("name", BACKBONES)
def test_a_loaded_model_gives_the_same_logits_bit_for_bit(name: str, tmp_path: Path) -> None:
    model, node = make_model(name)
    save(model, node, tmp_path / "new" / "model")
    images = torch.randn(2, 3, 40, 40, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = model.to(memory_format=torch.contiguous_format)(images)
        assert torch.equal(load(tmp_path / "new" / "model")(images), expected)


@pytest.mark.parametrize("name", HEADS)
def test_a_head_of_any_kind_is_rebuilt_from_what_is_said_of_it(name: str, tmp_path: Path) -> None:
    whole, node = make_model("test_resnet")
    dim, head = whole.backbone.feature_dim, HEADS[name]
    values = {key: value for key, value in head.items() if key != "_target_"}
    made: nn.Module = get_class(head["_target_"])(**values).make(feature_dim=dim, num_classes=3, seed=1)
    with torch.no_grad():
        for tensor in (*made.parameters(), *(buffer for buffer in made.buffers() if buffer.is_floating_point())):
            tensor.add_(torch.randn(tensor.shape, generator=torch.Generator().manual_seed(2)))  # as if it were trained
    save(Model(whole.backbone, made).eval(), node, tmp_path / "model", head=head)
    features = torch.randn(4, dim, generator=torch.Generator().manual_seed(0))
    assert torch.equal(load(tmp_path / "model").head(features), made(features))


def test_what_is_said_comes_back(saved: Path) -> None:
    assert Description.load(saved) == save(*make_model("test_resnet"), saved)
    assert (saved / "README.md").read_text() == "# a card\n"


def test_the_head_is_stored_without_its_neighbours_in_the_bank(saved: Path) -> None:
    model = load(saved)
    stored = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    assert (saved / "model.safetensors").stat().st_size < stored + 100_000


def test_a_save_that_fails_leaves_what_was_there(copy: Path) -> None:
    before = load(copy).state_dict()
    model, node = make_model("test_resnet", seed=5)
    with pytest.raises(TypeError):
        save(model, node | {"name": object()}, copy)
    assert all(torch.equal(tensor, before[name]) for name, tensor in load(copy).state_dict().items())


def one_line(load_it: Callable[[], object]) -> str:
    with pytest.raises(UserError) as caught:
        load_it()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda said: said.update(format=4), "a newer version of this program wrote it (format 4)"),
        (lambda said: said["decoding"].update(version=2), "a newer version"),
        (lambda said: said.pop("temperature"), "lacks 'temperature'"),
        (lambda said: said.update(temperature=0), "temperature 0"),
        (lambda said: said.update(temperature=10**400), "too large"),
        (lambda said: said.update(class_names=["a", "a", "b"]), "class_names"),
        (lambda said: said["input"].update(centre_crop=10**6), "a centre crop of 1000000"),
        (lambda said: said["input"].update(interpolation="sharp"), "interpolation 'sharp'"),
        (lambda said: said["input"].update(std=[0, 1, 1]), "std"),
        (lambda said: said["input"].update(mean=[0, 1]), "not enough values"),
        (lambda said: said.update(examples=["../secret.png"]), "examples lead elsewhere"),
    ],
)
def test_a_description_that_cannot_be_is_refused_in_one_line(
    change: Callable[[dict[str, Any]], None], told: str, copy: Path
) -> None:
    edit(copy, change)
    message = one_line(lambda: Description.load(copy))
    assert told in message
    assert str(copy / "model.json") in message


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", '{"format": 3}', "[" * 100_000])
def test_what_is_no_description_is_refused_in_one_line(text: str, copy: Path) -> None:
    (copy / "model.json").write_text(text)
    assert "cannot be read as the description of a model" in one_line(lambda: Description.load(copy))


@pytest.mark.parametrize(
    "node",
    [
        {"_target_": "os.system", "command": "touch ran"},
        {"_target_": "tl_experiments.models.weights.os.system"},
        {"_target_": "tl_experiments.cli.verbs.main", "arguments": ["cache", "prune", "--all"]},
        {"_target_": f"{KINDS}Linear", "dropout": {"_target_": "os.getcwd"}},
    ],
)
@pytest.mark.parametrize("group", ["backbone", "head"])
def test_a_description_can_run_no_code(group: str, node: dict[str, Any], copy: Path) -> None:
    edit(copy, lambda said: said.update({group: node}))
    with pytest.raises(
        ConfigError, match=r"not an allowed target|not allowed here|is not allowed|expected what makes|no such thing"
    ):
        load(copy)


@pytest.mark.parametrize("group", ["backbone", "head"])
def test_a_description_can_read_no_environment(group: str, copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "told")
    edit(copy, lambda said: said[group].update({"name": "${oc.env:SECRET}"}))
    with pytest.raises(ConfigError, match="interpolations have no effect here"):
        load(copy)


@pytest.mark.parametrize(
    ("group", "values"),
    [
        ("backbone", {"name": 5}),
        ("backbone", {"image_size": "big"}),
        ("head", {"dropout": 2}),
        ("head", {**HEADS["mlp"], "hidden_dim": "x"}),
    ],
)
def test_values_that_suit_no_network_are_told_in_one_line(group: str, values: dict[str, Any], copy: Path) -> None:
    edit(copy, lambda said: said[group].update(values))
    assert str(copy) in one_line(lambda: load(copy))


def test_a_canvas_of_another_size_than_the_network_takes_is_refused(copy: Path) -> None:
    edit(copy, lambda said: said["input"].update(centre_crop=16))
    assert "crops images to 16 pixels, but its network takes 40" in one_line(lambda: load(copy))


def test_a_pipe_in_place_of_weights_keeps_nobody_waiting(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    os.mkfifo(copy / "model.safetensors")
    assert "no such file" in one_line(lambda: load(copy))


@pytest.mark.parametrize("name", ["README.md", "example-1.png", "model.safetensors"])
def test_a_copy_follows_no_link_out_of_the_folder(name: str, copy: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("told")
    (copy / name).unlink()
    (copy / name).symlink_to(tmp_path / "secret")
    (tmp_path / "new").mkdir()
    message = one_line(lambda: copy_model(copy, tmp_path / "new", description=Description.load(copy)))
    assert f"{copy / name}: is no file of its own" in message
    assert not (tmp_path / "new" / name).exists()


def test_weights_of_another_model_are_refused(copy: Path) -> None:
    edit(copy, lambda said: said.update(weights_sha256="0" * 64))
    assert "not the weights that model.json describes" in one_line(lambda: load(copy))


def test_damaged_weights_are_refused(copy: Path) -> None:
    content = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(content[: len(content) // 2])
    assert "cannot be read" in one_line(lambda: load(copy))


def test_another_network_is_refused_before_memory_is_taken(copy: Path) -> None:
    edit(copy, lambda said: said.update(head={**HEADS["neighbours"], "num_images": 10**12}))
    with pytest.raises(SettingError, match="are not those of the network"):
        load(copy)
