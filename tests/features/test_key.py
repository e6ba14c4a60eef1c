"""The key of features: whatever decides their bits is in it, and nothing else."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import PIL
import pytest
import torch
from PIL import features as pillow

from tl_experiments.data import canvas_store
from tl_experiments.data.augmentation import Augmentation
from tl_experiments.data.policies import RandAugment, TrivialAugment
from tl_experiments.data.transforms import Canvas, Normalise
from tl_experiments.features import key
from tl_experiments.features.extract import Mirrored, View
from tl_experiments.features.key import feature_fields, weights_of
from tl_experiments.models.backbone import Backbone
from tl_experiments.models.timm_backbone import timm_backbone
from tl_experiments.runtime import process
from tl_experiments.runtime.fingerprint import fingerprint
from tl_experiments.runtime.precision import Compute, Precision

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
CANVAS = Canvas(size=36, crop=32, interpolation="bilinear")
NORMALISE = Normalise((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
COMPUTE = Compute(CPU, Precision("fp32", "cpu"), Precision("fp32", "cpu"), "contiguous", infer_batch_size=4)
CROPS = Augmentation(hflip_prob=0.5, rotation_degrees=10.0, scale=(0.5, 1.0), ratio=(0.9, 1.1), erase_prob=0.0)
MIRRORS = Augmentation(hflip_prob=0.5, rotation_degrees=0.0, scale=(1.0, 1.0), ratio=(1.0, 1.0), erase_prob=0.0)
VIEW = View(CROPS, 0, 4)


def make_backbone(*, image_size: int = 32) -> Backbone:
    return timm_backbone(
        name="test_efficientnet", weights=None, image_size=image_size, preferred_size=None, seed=0
    ).eval()


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return make_backbone()


def fields_of(backbone: Backbone, **changes: Any) -> dict[str, Any]:
    arguments = {
        "backbone": backbone,
        "weights_sha256": "a" * 64,
        "canvas": CANVAS,
        "normalise": NORMALISE,
        "compute": COMPUTE,
        "view": VIEW,
    }
    return feature_fields(**(arguments | changes))


def leaves(fields: Any, *names: str) -> dict[str, Any]:
    """Name every single value by the names that lead to it."""
    if not isinstance(fields, Mapping):
        return {".".join(names): fields}
    return {name: value for part in fields for name, value in leaves(fields[part], *names, part).items()}


def augmented(**changes: Any) -> dict[str, Any]:
    return {"view": replace(VIEW, augmentation=replace(CROPS, **changes))}


def otherwise(owner: Any, name: str, value: Any) -> Callable[[pytest.MonkeyPatch], dict[str, Any]]:
    """A change of the surroundings alone."""

    def change(patch: pytest.MonkeyPatch) -> dict[str, Any]:
        patch.setattr(owner, name, value)
        return {}

    return change


def renamed(_: pytest.MonkeyPatch) -> dict[str, Any]:
    other = make_backbone()
    other.name = "other"
    return {"backbone": other}


VERSIONS = key.versions()
CHANGES: dict[str, Callable[[pytest.MonkeyPatch], dict[str, Any]]] = {
    "extractor": otherwise(key, "EXTRACTOR", key.EXTRACTOR + 1),
    "image.canvas.size": lambda _: {"canvas": replace(CANVAS, size=40)},
    "image.canvas.crop": lambda _: {"canvas": replace(CANVAS, crop=30)},
    "image.canvas.interpolation": lambda _: {"canvas": replace(CANVAS, interpolation="bicubic")},
    "image.decoding": otherwise(canvas_store, "DECODING", canvas_store.DECODING + 1),
    "image.drawing": otherwise(canvas_store, "DRAWING", canvas_store.DRAWING + 1),
    "image.decoders.pillow": otherwise(PIL, "__version__", "0"),
    "image.decoders.jpeg": otherwise(pillow, "version", lambda _: "0"),
    "image.size": lambda _: {"backbone": make_backbone(image_size=64)},
    "image.mean": lambda _: {"normalise": replace(NORMALISE, mean=(0.5, 0.4, 0.2))},
    "image.std": lambda _: {"normalise": replace(NORMALISE, std=(0.2, 0.3, 0.5))},
    "view.number": lambda _: {"view": replace(VIEW, number=1)},
    "view.augmentation.kind": lambda _: {"view": replace(VIEW, augmentation=TrivialAugment(**vars(CROPS)))},
    "view.augmentation.erase_prob": lambda _: augmented(erase_prob=0.5),
    "view.augmentation.hflip_prob": lambda _: augmented(hflip_prob=0.25),
    "view.augmentation.rotation_degrees": lambda _: augmented(rotation_degrees=11.0),
    "view.augmentation.scale": lambda _: augmented(scale=(0.6, 1.0)),
    "view.augmentation.ratio": lambda _: augmented(ratio=(0.9, 1.2)),
    "backbone.name": renamed,
    "backbone.weights_sha256": lambda _: {"weights_sha256": "b" * 64},
    "compute.precision": lambda _: {"compute": replace(COMPUTE, infer=Precision("bf16", "cpu"))},
    "compute.layout": lambda _: {"compute": replace(COMPUTE, layout="channels_last")},
    "compute.batch_size": lambda _: {"compute": replace(COMPUTE, infer_batch_size=8)},
    "compute.device.cpu": otherwise(key, "processor_name", lambda: "another"),
    "compute.device.cpu_sha256": otherwise(key, "processor_digest", lambda: "c" * 64),
    "compute.device.capability": otherwise(torch.backends.cpu, "get_cpu_capability", lambda: "ANOTHER"),
    "compute.device.threads": otherwise(torch, "get_num_threads", lambda: 1000),
    "compute.deterministic": otherwise(torch, "are_deterministic_algorithms_enabled", lambda: True),
    **{f"versions.{name}": otherwise(key, "versions", lambda n=name: VERSIONS | {n: "0"}) for name in VERSIONS},
}
CONSTANT = {"backbone.batchnorm": "eval, folded"}


@pytest.mark.parametrize("name", CHANGES)
def test_what_decides_the_bits_is_in_the_key_under_its_name(
    name: str, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = fields_of(backbone)
    after = fields_of(**({"backbone": backbone} | CHANGES[name](monkeypatch)))
    one, other = leaves(before), leaves(after)
    assert {part for part in one.keys() | other.keys() if one.get(part) != other.get(part)} == {name}
    assert fingerprint(before) != fingerprint(after)


def test_nothing_is_in_the_key_that_no_test_changes(backbone: Backbone) -> None:
    assert leaves(fields_of(backbone)).keys() == CHANGES.keys() | CONSTANT.keys()
    assert CONSTANT.items() <= leaves(fields_of(backbone)).items()


def test_a_mirror_image_has_features_of_its_own(backbone: Backbone) -> None:
    seen = [fingerprint(fields_of(backbone, view=view)) for view in (None, Mirrored(), VIEW)]
    assert len(set(seen)) == 3


def test_a_gpu_is_known_by_its_model_and_its_cuda(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    on_gpu = replace(COMPUTE, device=GPU)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "one")
    monkeypatch.setattr(torch.version, "cuda", "1.0")
    seen = [fields_of(backbone, compute=on_gpu)]
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "another")
    seen.append(fields_of(backbone, compute=on_gpu))
    monkeypatch.setattr(torch.version, "cuda", "2.0")
    seen.append(fields_of(backbone, compute=on_gpu))
    assert [fields["compute"]["device"] for fields in seen] == [
        {"gpu": "one", "cuda": "1.0"},
        {"gpu": "another", "cuda": "1.0"},
        {"gpu": "another", "cuda": "2.0"},
    ]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("processor\t: 0\nmodel\t\t: 106\nmodel name\t: Some CPU 8375C \nflags\t: fpu\n", "Some CPU 8375C"),
        ("processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd40\n", "0xd40"),
        ("", "another kind of system"),
    ],
    ids=["x86", "ARM", "none"],
)
def test_a_cpu_is_known_by_its_model(
    text: str, named: str, backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(process, "CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr("platform.processor", lambda: "another kind of system")
    assert fields_of(backbone)["compute"]["device"]["cpu"] == named


def test_cpus_of_one_name_are_told_apart_by_what_they_can_do(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def device(flags: str, megahertz: int) -> dict[str, Any]:
        cores = [
            f"processor\t: {core}\nmodel name\t: Some CPU\ncpu MHz\t\t: {megahertz + core}\nflags\t\t: {flags}\n"
            for core in range(2)
        ]
        (tmp_path / "cpuinfo").write_text("\n".join(cores))
        return fields_of(backbone)["compute"]["device"]

    monkeypatch.setattr(process, "CPUINFO", tmp_path / "cpuinfo")
    assert device("fpu amx_bf16", 2000) == device("fpu amx_bf16", 2100) != device("fpu", 2000)


def test_nothing_else_changes_the_key(backbone: Backbone) -> None:
    """The precision of training, where the weights come from, and a second backbone of the same weights."""
    assert fields_of(backbone, compute=replace(COMPUTE, train=Precision("bf16", "cpu"))) == fields_of(backbone)
    again = make_backbone()
    again.weights_id = "file:elsewhere.pth"
    assert fields_of(again.train().requires_grad_(False)) == fields_of(backbone)
    assert weights_of(again) == weights_of(backbone)


def test_the_centre_is_no_view(backbone: Backbone) -> None:
    assert fields_of(backbone, view=None)["view"] is None


def test_how_many_views_there_are_decides_of_two_that_mirror_and_of_no_others(backbone: Backbone) -> None:
    def view(augmentation: Augmentation, number: int, num_views: int) -> Any:
        return fields_of(backbone, view=View(augmentation, number, num_views))["view"]

    assert view(CROPS, 1, 2) == view(CROPS, 1, 4) == view(CROPS, 1, 8)
    assert view(MIRRORS, 1, 3) == view(MIRRORS, 1, 4)
    assert view(MIRRORS, 0, 2) != view(MIRRORS, 0, 3)
    assert view(MIRRORS, 1, 2) != view(MIRRORS, 1, 3)
    assert view(MIRRORS, 0, 2) != view(MIRRORS, 1, 2)


@pytest.mark.parametrize("change", [{"num_ops": 3}, {"magnitude": 10}])
def test_what_a_policy_takes_is_in_the_key(backbone: Backbone, change: dict[str, int]) -> None:
    policy = RandAugment(**vars(CROPS), num_ops=2, magnitude=9)
    one, other = (
        fields_of(backbone, view=replace(VIEW, augmentation=kind)) for kind in (policy, replace(policy, **change))
    )
    assert one["view"]["augmentation"] | change == other["view"]["augmentation"]
    assert fingerprint(one) != fingerprint(other)


def test_lists_and_tuples_of_an_augmentation_are_the_same_view(backbone: Backbone) -> None:
    """Configurations give lists."""
    lists = replace(CROPS, scale=[0.5, 1.0], ratio=[0.9, 1.1])
    assert fingerprint(fields_of(backbone, view=View(lists, 0, 4))) == fingerprint(fields_of(backbone))
