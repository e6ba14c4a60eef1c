"""Every option of every group composes, passes the checks and becomes an object; every recipe composes."""

import gzip
import pickle
import struct
from collections.abc import Callable, Iterator
from hashlib import md5
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision import datasets

from tl_experiments import build
from tl_experiments.build.ground import Ground
from tl_experiments.config.compose import CONF
from tl_experiments.config.member import Member
from tl_experiments.data.packing import Packing, pack
from tl_experiments.data.source import Dataset
from tl_experiments.data.watch import UNWATCHED
from tl_experiments.models.backbone import Backbone
from tl_experiments.runtime.errors import SettingError
from tl_experiments.strategies.base import Workload
from tl_experiments.tracking.console import Console

MakeMember = Callable[..., Member]


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


@pytest.fixture
def digits(make_member: MakeMember) -> Dataset:
    return build.build_dataset(make_member())


def backbone_of(member: Member, dataset: Dataset) -> Backbone:
    return build.build_backbone(member, dataset=dataset, strategy=build.build_strategy(member))


def random_images(count: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, *shape), dtype=np.uint8)


def write_cifar(root: Path, kind: Any, files: dict[str, int], label_key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write tiny files in the layout of CIFAR's Python version, and make torchvision expect their checksums."""
    folder = root / kind.base_folder
    folder.mkdir(parents=True)
    num_classes = 100 if kind is datasets.CIFAR100 else 10
    sums = {}
    for name, count in files.items():
        entry = {"data": random_images(count, 3072), label_key: [index % num_classes for index in range(count)]}
        (folder / name).write_bytes(pickle.dumps(entry))
        sums[name] = md5((folder / name).read_bytes()).hexdigest()
    names = [f"class {index}" for index in range(num_classes)]
    (folder / kind.meta["filename"]).write_bytes(pickle.dumps({kind.meta["key"]: names}))
    meta = md5((folder / kind.meta["filename"]).read_bytes()).hexdigest()
    for attribute in ("train_list", "test_list"):
        expected = [[name, sums[name]] for name, _ in getattr(kind, attribute)]
        monkeypatch.setattr(kind, attribute, expected)
    monkeypatch.setattr(kind, "meta", kind.meta | {"md5": meta})


def write_fashion_mnist(root: Path) -> None:
    folder = root / "FashionMNIST" / "raw"
    folder.mkdir(parents=True)
    for part, count in (("train", 100), ("t10k", 20)):
        images, labels = random_images(count, 28, 28), (np.arange(count) % 10).astype(np.uint8)
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            header = struct.pack(">I", 0x0800 + array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
            (folder / f"{part}-{kind}-ubyte.gz").write_bytes(gzip.compress(header + array.tobytes()))


def write_folder(root: Path) -> None:
    for name in ("cats", "dogs"):
        (root / name).mkdir(parents=True)
        for index, pixels in enumerate(random_images(10, 9, 12, 3)):
            Image.fromarray(pixels).save(root / name / f"{index}.png")


def write_table(folder: Path, kind: str) -> Path:
    rows = [(path.relative_to(folder).as_posix(), path.parent.name) for path in sorted(folder.rglob("*.png"))]
    table = pd.DataFrame(rows, columns=["image_path", "label"])
    path = folder / f"table.{kind}"
    table.to_csv(path, index=False) if kind == "csv" else table.to_parquet(path)
    return path


@pytest.fixture
def root(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path | None:
    """Where a dataset's files are; None for the embedded one."""
    folder = tmp_path / "data"
    if request.param == "cifar10":
        files = {f"data_batch_{index}": 20 for index in range(1, 6)} | {"test_batch": 20}
        write_cifar(folder, datasets.CIFAR10, files, "labels", monkeypatch)
    elif request.param == "cifar100":
        write_cifar(folder, datasets.CIFAR100, {"train": 500, "test": 100}, "fine_labels", monkeypatch)
    elif request.param == "fashion_mnist":
        write_fashion_mnist(folder)
    elif request.param == "image_folder":
        write_folder(folder)
    elif request.param in ("csv", "parquet"):
        write_folder(folder)
        return write_table(folder, request.param)
    elif request.param == "webdataset":
        write_folder(tmp_path / "unpacked")
        options = {"seed": 0, "follow_links": False, "skip_bad": False, "workers": 0}
        pack(str(tmp_path / "unpacked"), folder, Packing(num_shards=2, **options), watch=UNWATCHED)
    elif request.param == "hf":
        write_folder(folder)
        monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "hf")
    return folder if folder.exists() else None


@pytest.mark.parametrize(
    ("root", "name", "sizes"),
    [
        ("digits", "digits", (1295, 143, 359)),
        ("cifar10", "cifar10", (90, 10, 20)),
        ("cifar100", "cifar100", (400, 100, 100)),
        ("fashion_mnist", "fashion_mnist", (90, 10, 20)),
        ("image_folder", "image_folder", (14, 2, 4)),
        ("csv", "csv", (14, 2, 4)),
        ("parquet", "parquet", (14, 2, 4)),
        ("hf", "hf", (14, 2, 4)),
        ("webdataset", "webdataset", (14, 2, 4)),
    ],
    indirect=["root"],
)
def test_a_dataset_becomes_three_splits_of_images(
    root: Path | None, name: str, sizes: tuple[int, ...], make_member: MakeMember
) -> None:
    overrides = [f"dataset={name}"] if root is None else [f"dataset={name}", f"dataset.root={root}"]
    member = make_member(*overrides)
    dataset = build.build_dataset(member)
    assert [len(split) for split in (dataset.train, dataset.val, dataset.test)] == list(sizes)
    assert set(dataset.test.labels) <= set(range(dataset.num_classes))
    assert dataset.train.source.image(0).mode == "RGB"
    assert build.data_source(member) == (name if root is None else str(root))


def test_every_dataset_is_tested_above() -> None:
    assert options("dataset") == [
        *("cifar10", "cifar100", "csv", "digits", "fashion_mnist", "hf", "image_folder", "parquet", "webdataset")
    ]


@pytest.mark.parametrize("option", options("backbone"))
def test_a_backbone_turns_images_into_features(option: str, make_member: MakeMember, digits: Dataset) -> None:
    overrides = [f"backbone={option}"]
    if option == "timm":
        overrides.append("backbone.name=resnet10t")
    if option != "efficientnet_lite0":
        overrides.append("backbone.weights=null")
    values = torch.device("cpu" if option == "efficientnet_lite0" else "meta")  # random ones say no more than shapes
    with values:
        backbone = backbone_of(make_member(*overrides), digits).eval()
    side = backbone.input_spec.size
    assert side == {"inception_v3": 299, "vit_b_16": 224}.get(option, digits.image_size)
    with torch.inference_mode():
        features = backbone(torch.zeros(1, 3, side, side, device=values))
    assert features.shape == (1, backbone.feature_dim)
    assert backbone.name == ("resnet10t" if option == "timm" else option)


def test_the_embedded_backbone_is_no_other(make_member: MakeMember, digits: Dataset) -> None:
    with pytest.raises(SettingError, match=r"^backbone\.name=resnet50: .* backbone=timm backbone\.name=resnet50"):
        backbone_of(make_member("backbone.name=resnet50"), digits)


def test_the_size_of_a_backbone_is_the_users_then_the_datasets(make_member: MakeMember, digits: Dataset) -> None:
    assert backbone_of(make_member(), digits).input_spec.size == 64
    assert backbone_of(make_member("backbone.image_size=96"), digits).input_spec.size == 96
    with pytest.raises(SettingError, match=r"backbone\.image_size=8: "):
        backbone_of(make_member("backbone.image_size=8"), digits)


@pytest.mark.parametrize("option", options("augmentation"))
def test_an_augmentation_is_decided_for_the_dataset(option: str, make_member: MakeMember, digits: Dataset) -> None:
    augmentation = build.build_augmentation(make_member(f"augmentation={option}"), dataset=digits)
    assert augmentation.is_random is (option != "none")
    assert augmentation.hflip_prob == 0.0  # a mirrored digit is another one
    draws = augmentation.parameters(np.arange(50), seed=0, epoch=1)
    assert bool(np.ptp(draws.width) > 0) is (option != "none")


@pytest.fixture
def stand() -> Callable[[Member], Ground]:
    """What a run on few small digits stands on."""

    def make(member: Member) -> Ground:
        with build.build_place(member) as place:
            return build.build_ground(member, who="test", place=place, watch=Console())

    return make


def prepared(member: Member, ground: Ground) -> Workload:
    return ground.strategy.prepare(build.build_materials([member], ground, watch=Console()))


SMALL = ("dataset.train_size=20", "dataset.val_fraction=0.02", "backbone.image_size=32", "epochs=1", "runtime=cpu")


class Recorder(dict):
    """A config node that remembers what is read of it."""

    def __init__(self, values: dict[str, Any]) -> None:
        super().__init__(values)
        self.read: set[str] = set()

    def __getitem__(self, key: str) -> Any:
        self.read.add(key)
        return super().__getitem__(key)


@pytest.mark.parametrize("option", options("strategy"))
def test_a_strategy_plans_a_workload_that_a_trainer_takes(
    option: str, make_member: MakeMember, stand: Callable[[Member], Ground]
) -> None:
    member = make_member(f"strategy={option}", *SMALL)
    runtime = Recorder(member.config["runtime"])
    member.config["runtime"] = runtime
    ground = stand(member)
    workload = prepared(member, ground)
    trainer = build.build_trainer([member], workload, ground=ground)
    next(iter(trainer.fit()))
    assert workload.num_members == 1
    probe_epochs = member.config["strategy"].get("probe_epochs", 0)
    by_steps = [phase for phase in workload.phases if phase.solve is None]
    assert sum(phase.epochs for phase in by_steps) == (probe_epochs + 1 if by_steps else 0)
    assert runtime.read == runtime.keys(), "a setting of the runtime that nothing reads"


@pytest.mark.parametrize("option", options("head"))
@pytest.mark.parametrize("strategy", ["feature", "finetune"])
def test_a_head_of_any_kind_is_trained_behind_a_backbone(
    option: str, strategy: str, make_member: MakeMember, stand: Callable[[Member], Ground]
) -> None:
    member = make_member(f"head={option}", f"strategy={strategy}", *SMALL)
    ground = stand(member)
    workload = prepared(member, ground)
    before = {name: tensor.clone() for name, tensor in workload.trained_tensors(0).items() if name.startswith("head.")}
    for _ in build.build_trainer([member], workload, ground=ground).fit():
        pass
    assert before.keys() == {f"head.{name}" for name in workload.deployables[0].head.state_dict()}
    assert not [name for name, tensor in before.items() if torch.equal(workload.trained_tensors(0)[name], tensor)]


@pytest.mark.parametrize("option", options("optimizer"))
def test_an_optimizer_makes_a_step_with_real_parameters(option: str, make_member: MakeMember) -> None:
    member = make_member(f"optimizer={option}", "scheduler=constant", "lr=0.125")
    layer = nn.Linear(3, 2)
    before = layer.weight.detach().clone()
    optimizer = build.build_optimizer(member)(list(layer.parameters()))
    layer(torch.ones(4, 3)).square().mean().backward()
    getattr(optimizer, "train", lambda: None)()  # schedule-free ones ask for it
    optimizer.step()
    assert optimizer.param_groups[0]["lr"] == 0.125
    values = {key: value for key, value in member.config["optimizer"].items() if not key.startswith("_")}
    assert {key: _as_list(optimizer.param_groups[0][key]) for key in values} == values
    assert not torch.equal(layer.weight, before)


def _as_list(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


@pytest.mark.parametrize("option", options("scheduler"))
def test_a_scheduler_moves_a_real_optimizer(option: str, make_member: MakeMember) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule = build.build_scheduler(make_member(f"scheduler={option}"))(optimizer, total_steps=20, steps_per_epoch=2)
    rates = {optimizer.param_groups[0]["lr"]}
    for _ in range(10):
        for _ in range(2):
            optimizer.step()
            schedule.after_step()
        schedule.after_epoch(0.5)
        rates.add(optimizer.param_groups[0]["lr"])
    assert (len(rates) > 1) is (option != "constant")
    assert max(rates) <= 1.0


@pytest.mark.parametrize("option", options("runtime"))
def test_a_runtime_opens_the_process_and_decides_how_to_compute(option: str, make_member: MakeMember) -> None:
    member = make_member(f"runtime={option}", *(("strategy=finetune",) if option == "fsdp" else ()))
    with build.build_place(member) as place:
        assert torch.are_deterministic_algorithms_enabled() is (option == "deterministic")
        ground = build.build_ground(member, who="test", place=place, watch=Console())
        compute, config = ground.compute, build.resolved_config(member, ground)
    assert option != "cpu" or place.device.type == "cpu"
    assert option != "deterministic" or compute.train.name == compute.infer.name == "fp32"
    assert not torch.are_deterministic_algorithms_enabled()
    decided = ("device", "threads", "train_precision", "infer_precision", "memory_format", "infer_batch_size")
    assert not {"auto", None} & {config["runtime"][key] for key in decided}
    assert config["backbone"]["image_size"] == 64


@pytest.mark.parametrize("option", options("tracking"))
def test_a_tracker_is_made_and_touches_nothing_yet(
    option: str, make_member: MakeMember, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    member = make_member(f"tracking={option}")
    log = build.build_log(member, index=0, num_members=1)
    assert log.tracker.run_id is None
    assert [path for path in tmp_path.iterdir() if path != member.folder] == []


def recipes() -> Iterator[Any]:
    for path in sorted((CONF / "experiment").glob("*.yaml")):
        yield pytest.param(path.stem, id=path.stem)


@pytest.mark.parametrize("recipe", list(recipes()))
def test_a_recipe_composes_and_its_values_can_be_overridden(
    recipe: str, make_member: MakeMember, tmp_path: Path
) -> None:
    overrides = [f"experiment={recipe}", f"dataset.root={tmp_path}"]
    member = make_member(*overrides)
    assert member.choices["experiment"] == recipe
    assert member.choices["augmentation"] == "standard"
    changed = make_member(*overrides, "lr=0.125", "epochs=7", "strategy=feature")
    assert (changed.config["lr"], changed.config["optimizer"]["lr"], changed.config["epochs"]) == (0.125, 0.125, 7)
    assert changed.choices["strategy"] == "feature"


def test_the_classic_recipe_is_the_classic_one(make_member: MakeMember) -> None:
    config = make_member("experiment=cifar10_resnet18").config
    assert (config["backbone"]["name"], config["dataset"]["name"]) == ("resnet18", "cifar10")
    assert (config["lr"], config["epochs"], config["batch_size"]) == (1e-3, 10, 32)
    assert config["optimizer"]["_target_"] == "torch.optim.SGD"
    assert config["optimizer"]["momentum"] == 0.9
    assert (config["scheduler"]["step_size"], config["scheduler"]["gamma"]) == (3, 0.1)


def test_the_defaults_are_the_documented_ones(make_member: MakeMember) -> None:
    member = make_member()
    assert {key: member.config[key] for key in ("lr", "epochs", "batch_size", "seed")} == {
        "lr": 1e-3,
        "epochs": 10,
        "batch_size": 32,
        "seed": 0,
    }
    assert member.choices | {"tracking": "mlflow"} == {
        "backbone": "efficientnet_lite0",
        "strategy": "feature",
        "head": "linear",
        "optimizer": "adamw",
        "scheduler": "cosine",
        "dataset": "digits",
        "augmentation": "none",
        "runtime": "auto",
        "tracking": "mlflow",
    }
