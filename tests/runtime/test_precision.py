"""The table has an answer for every backbone on every kind of device, and what a user asks for wins."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tl_experiments.runtime import precision
from tl_experiments.runtime.precision import MEMORY_FORMATS, PRECISIONS, Compute, Precision, choose, device_kind, table

CPU = torch.device("cpu")
BACKBONES = sorted(path.stem for path in (Path(__file__).parents[2] / "conf" / "backbone").glob("*.yaml"))
KINDS = [
    "cpu", "cpu_amx", "cpu_avx512_bf16_amd", "cpu_avx512_bf16_intel", "cpu_avx512_bf16_other", "cuda",
    "cuda_without_bf16",
]  # fmt: skip
PAIRS = [f"{name}/{layout}" for name in PRECISIONS for layout in MEMORY_FORMATS]


def chosen(backbone: str = "efficientnet_lite0", image_size: int = 224, device: torch.device = CPU, **asked) -> Compute:
    options: dict[str, Any] = {
        "trains_backbone": False,
        "learns_from_features": False,
        "train_precision": "auto",
        "infer_precision": "auto",
        "memory_format": "auto",
        "infer_batch_size": None,
    }
    return choose(device=device, backbone=backbone, image_size=image_size, **(options | asked))


def speeds(fastest: str, second: str = "") -> dict[str, float]:
    return {pair: 3.0 * (pair == fastest) + 2.0 * (pair == second) for pair in PAIRS}


@pytest.fixture
def on_kind(monkeypatch: pytest.MonkeyPatch):
    """Makes this machine's CPU one of the table's kinds and returns the device."""

    def on(kind: str) -> torch.device:
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: kind == "cpu_amx")
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: "bf16" in kind)
        monkeypatch.setattr(precision, "processor_name", lambda: f"{kind.rpartition('_')[2].upper()}(R) 1000")
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: kind != "cuda_without_bf16")
        device = torch.device(kind.split("_")[0])
        assert device_kind(device) == kind
        return device

    return on


@pytest.fixture
def small_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """One backbone that was measured at two sizes; everything in it differs between training and inference."""
    rows = [
        {
            "image_size": 64,
            "train": speeds("fp32/channels_last", "bf16/contiguous"),
            "infer": speeds("fp32/contiguous", "bf16/channels_last"),
        },
        {
            "image_size": 224,
            "train": speeds("bf16/contiguous", "fp32/channels_last"),
            "infer": speeds("fp32/channels_last", "bf16/contiguous"),
        },
    ]
    other = [{"image_size": 224, "train": speeds("fp32/contiguous"), "infer": speeds("fp32/contiguous")}]
    kinds = {device_kind(CPU): {"measured": rows, "*": other}, "cpu": {"*": other}}
    monkeypatch.setattr(precision, "table", lambda: kinds)


@pytest.mark.parametrize("trains_backbone", [True, False])
@pytest.mark.parametrize("backbone", [*BACKBONES, "convnext_tiny"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_backbone_has_an_answer_on_every_kind_of_device(kind: str, backbone: str, trains_backbone: bool, on_kind):
    device = on_kind(kind)
    for image_size in (32, 64, 224, 299, 512):
        compute = chosen(backbone, image_size, device, trains_backbone=trains_backbone)
        assert {compute.train.name, compute.infer.name} <= set(PRECISIONS)
        assert compute.layout in MEMORY_FORMATS
        assert compute.train.device_type == compute.infer.device_type == device.type


def test_every_row_of_the_table_has_a_speed_for_every_choice() -> None:
    assert {"cpu", "cuda"} <= table().keys()
    assert table()["cpu"]["*"]
    assert table()["cuda"]["*"]
    for backbones in table().values():
        for rows in backbones.values():
            for row in rows:
                assert row["image_size"] >= 1
                assert sorted(row["train"]) == sorted(row["infer"]) == sorted(PAIRS)


@pytest.mark.parametrize("layout", MEMORY_FORMATS)
@pytest.mark.parametrize("train", PRECISIONS)
@pytest.mark.parametrize("infer", PRECISIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_asked_for_wins(kind: str, infer: str, train: str, layout: str, on_kind) -> None:
    device = on_kind(kind)
    asked = {"train_precision": train, "infer_precision": infer, "memory_format": layout}
    compute = chosen(device=device, trains_backbone=True, **asked)
    assert (compute.train.name, compute.infer.name, compute.layout) == (train, infer, layout)
    assert compute.memory_format == MEMORY_FORMATS[layout]
    assert str(compute) == f"train {train}, infer {infer}, {layout}"


@pytest.mark.usefixtures("small_table")
@pytest.mark.parametrize(("image_size", "nearest"), [(1, 64), (64, 64), (143, 64), (145, 224), (224, 224), (9999, 224)])
def test_the_nearest_measured_size_counts(image_size: int, nearest: int) -> None:
    compute = chosen("measured", image_size, trains_backbone=True)
    assert (compute.train.name, compute.layout) == {64: ("fp32", "channels_last"), 224: ("bf16", "contiguous")}[nearest]


@pytest.mark.usefixtures("small_table")
def test_the_layout_is_the_one_that_suits_what_the_backbone_does() -> None:
    assert chosen("measured", 64, trains_backbone=True).layout == "channels_last"
    assert chosen("measured", 64, trains_backbone=False).layout == "contiguous"


@pytest.mark.usefixtures("small_table")
def test_one_setting_that_is_asked_for_decides_the_others() -> None:
    assert chosen("measured", 64, memory_format="channels_last", trains_backbone=True).infer.name == "bf16"
    assert chosen("measured", 64, infer_precision="bf16").layout == "channels_last"
    assert chosen("measured", 64, trains_backbone=True, train_precision="bf16").layout == "contiguous"


def test_a_kind_without_rows_of_its_own_takes_those_of_its_type(monkeypatch: pytest.MonkeyPatch, on_kind) -> None:
    device = on_kind("cpu_avx512_bf16_amd")
    row = {"image_size": 224, "train": speeds("bf16/contiguous"), "infer": speeds("bf16/contiguous")}
    for kinds in ({"cpu": {"*": [row]}}, {"cpu": {"*": [row]}, "cpu_avx512_bf16_amd": {"*": []}}):
        monkeypatch.setattr(precision, "table", lambda kinds=kinds: kinds)
        compute = chosen("measured", device=device, trains_backbone=True)
        assert (compute.train.name, compute.layout) == ("bf16", "contiguous")


@pytest.mark.parametrize("kind", KINDS)
def test_features_are_float32_unless_bf16_is_asked_for(kind: str, on_kind) -> None:
    device = on_kind(kind)
    for how in ({"trains_backbone": False}, {"trains_backbone": True, "learns_from_features": True}):
        assert chosen(device=device, **how).infer.name == "fp32"
        assert chosen(device=device, **how, infer_precision="bf16").infer.name == "bf16"


def test_where_the_backbone_is_frozen_nothing_trains_in_bf16() -> None:
    assert chosen(trains_backbone=False, train_precision="bf16").train.name == "fp32"


@pytest.mark.usefixtures("small_table")
def test_a_backbone_that_was_not_measured_takes_the_common_row() -> None:
    compute = chosen("unheard_of", 64)
    assert (compute.infer.name, compute.layout) == ("fp32", "contiguous")


def test_more_small_images_than_large_ones_are_taken_at_once_unless_a_number_is_asked_for() -> None:
    small, large = (chosen(image_size=size).infer_batch_size for size in (32, 224))
    assert small > large >= 1
    assert chosen(image_size=4096).infer_batch_size == 1
    assert chosen(infer_batch_size=5).infer_batch_size == 5


def test_a_gpu_without_bf16_does_not_choose_it(on_kind) -> None:
    compute = chosen(device=on_kind("cuda_without_bf16"), trains_backbone=True)
    assert (compute.train.name, compute.infer.name) == ("fp32", "fp32")


def test_bf16_computes_products_in_bf16_and_fp32_does_not_even_inside_autocast() -> None:
    a = torch.ones(2, 2)
    with Precision("bf16", "cpu").autocast():
        assert (a @ a).dtype == torch.bfloat16
        with Precision("fp32", "cpu").autocast():
            assert (a @ a).dtype == torch.float32
    assert (a @ a).dtype == torch.float32
