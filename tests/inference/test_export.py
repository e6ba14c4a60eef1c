"""The two files of an export are enough to use the model, and the second is never there without the first."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra.utils import get_class, get_method
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from tl_experiments.data.transforms import Canvas, Normalise, centre_crop, draw, make_canvas
from tl_experiments.inference.export import save_model
from tl_experiments.models.backbone import Backbone
from tl_experiments.models.digest import tensors_sha256
from tl_experiments.models.heads import HeadBank
from tl_experiments.models.model import Model

CLASS_NAMES = ("cat", "dog", "naïve ✓")
KINDS = "tl_experiments.models.head_kinds."
HEAD: dict[str, Any] = {"_target_": f"{KINDS}Linear", "dropout": 0.0}
HEADS: dict[str, dict[str, Any]] = {
    "dropout": {"_target_": f"{KINDS}Linear", "dropout": 0.5},
    "mlp": {"_target_": f"{KINDS}Mlp", "dropout": 0.1, "hidden_dim": 7},
    "cosine": {"_target_": f"{KINDS}Cosine", "dropout": 0.0, "scale": 5.0, "learn_scale": True},
    "cosine, fixed": {"_target_": f"{KINDS}Cosine", "dropout": 0.0, "scale": 5.0, "learn_scale": False},
}
BACKBONES = {
    "efficientnet_lite0": ("tl_experiments.models.efficientnet_lite0.efficientnet_lite0", "default"),
    "resnet18": ("tl_experiments.models.torchvision_backbones.torchvision_backbone", None),
    "resnet10t": ("tl_experiments.models.timm_backbone.timm_backbone", None),
}


def build(node: dict[str, Any], *, weights: str | None, seed: int) -> Backbone:
    return get_method(node["_target_"])(
        name=node["name"], weights=weights, image_size=node["image_size"], preferred_size=None, seed=seed
    )


@cache
def make_model(name: str, *, seed: int = 0) -> tuple[Model, dict[str, Any], Canvas]:
    """A model as training leaves it: its head shares the storage of a bank, and its statistics have moved."""
    target, weights = BACKBONES[name]
    node = {"_target_": target, "name": name, "weights": weights, "image_size": 40}
    backbone = build(node, weights=weights, seed=seed)
    bank = HeadBank(feature_dim=backbone.feature_dim, num_classes=len(CLASS_NAMES), seeds=(1, 2))
    model = Model(backbone.to(memory_format=torch.channels_last), bank.head(1))
    with torch.no_grad():
        model.train()(torch.randn(4, 3, 40, 40, generator=torch.Generator().manual_seed(0)))
    spec = backbone.input_spec
    canvas = make_canvas(size=spec.size, crop_pct=spec.crop_pct, interpolation=spec.interpolation)
    return model.eval(), node, canvas


def export(model: Model, node: dict[str, Any], canvas: Canvas, folder: Path, *, head: dict[str, Any] = HEAD) -> str:
    digest = tensors_sha256(model.state_dict())
    save_model(
        model,
        folder,
        class_names=CLASS_NAMES,
        backbone=node,
        head=head,
        canvas=canvas,
        weights_sha256=digest,
        temperature=1.25,
        mirrors=True,
    )
    return digest


def build_head(node: dict[str, Any], *, feature_dim: int, num_classes: int, seed: int) -> nn.Module:
    values = {key: value for key, value in node.items() if key != "_target_"}
    return get_class(node["_target_"])(**values).make(feature_dim=feature_dim, num_classes=num_classes, seed=seed)


def read(folder: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    description = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    return description, load_file(folder / "model.safetensors")


@pytest.mark.parametrize("name", BACKBONES)
def test_the_two_files_give_the_same_logits_bit_for_bit(name: str, tmp_path: Path) -> None:
    model, node, canvas = make_model(name)
    export(model, node, canvas, tmp_path / "new" / "model")
    description, tensors = read(tmp_path / "new" / "model")
    backbone = build(description["backbone"], weights=None, seed=99)
    assert backbone.feature_dim == description["backbone"]["feature_dim"]
    num_classes = len(description["class_names"])
    rebuilt = Model(
        backbone, build_head(description["head"], feature_dim=backbone.feature_dim, num_classes=num_classes, seed=9)
    )
    rebuilt.load_state_dict(tensors)
    rebuilt.eval()

    told = description["input"]
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8))

    def logits(module: nn.Module, size: int, canvas: Canvas, normalise: Normalise) -> torch.Tensor:
        with torch.inference_mode():
            return module(normalise(centre_crop(torch.from_numpy(draw(photo, canvas))[None], size)))

    spec = model.backbone.input_spec
    expected = logits(
        model.to(memory_format=torch.contiguous_format), spec.size, canvas, Normalise(spec.mean, spec.std)
    )
    again = logits(
        rebuilt,
        told["centre_crop"],
        Canvas(told["resize_shorter_side"], told["centre_crop"], told["interpolation"]),
        Normalise(tuple(told["mean"]), tuple(told["std"])),
    )
    assert torch.equal(again, expected)


def test_the_digest_is_that_of_the_tensors_and_the_names_are_kept(tmp_path: Path) -> None:
    model, node, canvas = make_model("resnet10t")
    digest = export(model, node, canvas, tmp_path)
    description, tensors = read(tmp_path)
    assert tensors_sha256(tensors) == description["weights_sha256"] == digest
    assert description["class_names"] == list(CLASS_NAMES)
    assert description["backbone"]["pretrained_weights"] == "random(seed=0)"
    assert description["input"]["color"] == "RGB"
    assert (description["temperature"], description["tta"]) == (1.25, "flip")
    assert description["format"] == 2
    assert description["head"] == HEAD


def test_the_head_is_stored_without_its_neighbours_in_the_bank(tmp_path: Path) -> None:
    model, node, canvas = make_model("resnet10t")
    export(model, node, canvas, tmp_path)
    tensors = read(tmp_path)[1]
    assert tensors["head.weight"].shape == (3, model.backbone.feature_dim)
    stored = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    assert (tmp_path / "model.safetensors").stat().st_size < stored + 100_000


def test_an_export_that_fails_leaves_no_description(tmp_path: Path) -> None:
    model, node, canvas = make_model("resnet10t")
    with pytest.raises(TypeError):
        export(model, node | {"name": object()}, canvas, tmp_path)
    assert not (tmp_path / "model.json").exists()


def test_an_export_that_fails_in_a_used_folder_leaves_no_description_of_other_weights(tmp_path: Path) -> None:
    export(*make_model("resnet10t"), tmp_path)
    model, node, canvas = make_model("resnet10t", seed=5)
    with pytest.raises(TypeError):
        export(model, node | {"name": object()}, canvas, tmp_path)
    if (tmp_path / "model.json").exists():
        description, tensors = read(tmp_path)
        assert tensors_sha256(tensors) == description["weights_sha256"]


@pytest.mark.parametrize("name", HEADS)
def test_a_head_of_any_kind_is_rebuilt_from_what_is_said_of_it(name: str, tmp_path: Path) -> None:
    """Without guessing from names and shapes of tensors, which do not tell a cosine head's scale from a trained one."""
    whole, node, canvas = make_model("resnet10t")
    dim, head = whole.backbone.feature_dim, HEADS[name]
    model = Model(whole.backbone, build_head(head, feature_dim=dim, num_classes=3, seed=1)).eval()
    with torch.no_grad():
        for parameter in model.head.parameters():
            parameter.mul_(1.5)  # as if it had been trained
    export(model, node, canvas, tmp_path / "model", head=head)
    description, tensors = read(tmp_path / "model")
    rebuilt = build_head(description["head"], feature_dim=dim, num_classes=3, seed=2).eval()
    rebuilt.load_state_dict({key.removeprefix("head."): t for key, t in tensors.items() if key.startswith("head.")})
    features = torch.randn(4, dim, generator=torch.Generator().manual_seed(0))
    assert torch.equal(rebuilt(features), model.head(features))
