"""Packing: bytes, labels and names as they were, every shard a sample of all, whole or not at all."""

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from webdataset.tariterators import group_by_keys, tar_file_iterator

from tests.data.opening import opened
from tests.data.shards import packed, shards
from tests.watching import Notes
from tl_experiments.cli.verbs import main
from tl_experiments.data.bad_images import FILE
from tl_experiments.data.source import Dataset, Split
from tl_experiments.runtime.errors import DataError, SettingError

COUNTS = {
    f"{split}/{name}": count for split, count in (("train", 30), ("test", 9)) for name in ("cat", "dog10", "dog9")
}


@pytest.fixture
def root(make_folder: Callable[..., Path], tmp_path: Path) -> Path:
    return make_folder(COUNTS, tmp_path / "root")


def contents(dataset: Dataset, split: Split) -> dict[str, tuple[bytes, str]]:
    """Name → bytes and class of each image."""
    return {
        split.source.name(index): (split.source.content(index), dataset.class_names[split.source.labels[index]])
        for index in split.indices.tolist()
    }


@pytest.mark.parametrize("workers", [0, 2])
def test_images_are_what_they_were(root: Path, tmp_path: Path, workers: int) -> None:
    told = packed(root, tmp_path / "packed", workers=workers)
    assert (told.num_images, told.num_shards) == ({"train": 90, "test": 27}, {"train": 3, "test": 1})
    folder, pack = opened(root), shards(tmp_path / "packed")
    assert pack.class_names == folder.class_names == ("cat", "dog9", "dog10")
    assert contents(pack, pack.test) == contents(folder, folder.test)
    both = [contents(dataset, dataset.train) | contents(dataset, dataset.val) for dataset in (pack, folder)]
    assert both[0] == both[1]
    assert len(both[0]) == 90


def test_others_read_the_shards(root: Path, tmp_path: Path) -> None:
    packed(root, tmp_path / "packed")
    seen = []
    for path in sorted((tmp_path / "packed").glob("train-*.tar")):
        with path.open("rb") as file:
            files = [{**entry, "__url__": ""} for entry in tar_file_iterator(file)]
            seen += [(sample["png"], int(sample["cls"])) for sample in group_by_keys(files)]
    folder = opened(root)
    known = {content: folder.class_names.index(name) for content, name in contents(folder, folder.train).values()}
    assert len(seen) == 90
    assert known.items() <= dict(seen).items()


def test_a_shard_is_a_sample_of_all_classes_by_seed_alone(root: Path, tmp_path: Path) -> None:
    for name, seed in (("one", 0), ("again", 0), ("other", 1)):
        packed(root, tmp_path / name, seed=seed)
    one, again, other = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("one", "again", "other")
    )
    assert one == again
    assert one.keys() == other.keys()
    assert one["train-0000.tar"] != other["train-0000.tar"]
    index = shards(tmp_path / "one").train.source.index  # pyright: ignore[reportAttributeAccessIssue]
    for shard in range(3):
        assert set(index.label[index.shard == shard]) == {0, 1, 2}
    assert (np.diff(index.shard) >= 0).all()


def test_what_was_written_can_be_verified(root: Path, tmp_path: Path) -> None:
    packed(root, tmp_path / "packed")
    listed = json.loads((tmp_path / "packed" / "manifest.json").read_text())["files"]
    for name, facts in listed.items():
        assert hashlib.sha256((tmp_path / "packed" / name).read_bytes()).hexdigest() == facts["sha256"]
    assert {"index.arrow", "train-0000.tar", "test-0000.tar"} <= listed.keys()


def test_all_bad_images_are_named_and_nothing_is_left(root: Path, tmp_path: Path) -> None:
    (root / "train/cat/3.png").write_bytes(b"no image")
    (root / "test/dog9/0.png").write_bytes(b"")
    with pytest.raises(DataError) as caught:
        packed(root, tmp_path / "packed")
    first, *lines = str(caught.value).splitlines()
    assert re.search(r"^2 of 117 images cannot be used; .*--skip-bad:$", first)
    assert [line.split(":")[0].strip() for line in lines] == ["train/cat/3.png", "test/dog9/0.png"]
    assert [path.name for path in tmp_path.iterdir()] == ["root"]


def test_bad_images_are_left_out_and_listed_where_that_is_asked_for(root: Path, tmp_path: Path) -> None:
    (root / "train/cat/3.png").write_bytes(b"no image")
    told = packed(root, tmp_path / "packed", skip_bad=True)
    assert told.num_images == {"train": 89, "test": 27}
    assert pd.read_csv(tmp_path / "packed" / FILE)["image"].tolist() == ["train/cat/3.png"]
    dataset = shards(tmp_path / "packed")
    assert len(dataset.train) + len(dataset.val) == 89


def test_a_class_is_not_left_without_images(root: Path, tmp_path: Path) -> None:
    for path in (root / "test/cat").iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(DataError, match=r"--skip-bad would leave no test image of cat"):
        packed(root, tmp_path / "packed", skip_bad=True)
    assert not (tmp_path / "packed").exists()


def test_a_table_is_packed_too(root: Path, tmp_path: Path) -> None:
    paths = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.png"))
    table = pd.DataFrame({"image_path": paths, "label": [path.split("/")[1] for path in paths]})
    table.to_csv(root / "table.csv", index=False)
    told = packed(root / "table.csv", tmp_path / "packed", num_shards=2)
    assert told.num_images == {"train": 117}
    dataset = shards(tmp_path / "packed")
    assert (
        contents(dataset, dataset.test).items()
        <= {path: ((root / path).read_bytes(), path.split("/")[1]) for path in paths}.items()
    )


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        (["{root}", "--shards", "0"], "--shards 0: expected 1 to 90, the images of train"),
        (["{root}", "--shards", "91"], "--shards 91: expected 1 to 90, the images of train"),
        (
            ["{root}", "--shards", "2", "--output", "{root}"],
            "--output {root}: is there already; name another, or remove",
        ),
        (["{root}", "--shards", "2", "--output", "{root}/x"], "--output {root}/x: lies in the folder that is packed"),
        (["{root}/no", "--shards", "2"], "{root}/no: no such folder; expected one with train/CLASS/*.jpg"),
        (["{root}/test/cat", "--shards", "2"], "{root}/test/cat: no folders in it, so no images"),
        (["{root}", "--shards", "2", "--workers", "-1"], "--workers -1: expected 0 or more"),
    ],
)
def test_what_cannot_be_packed_is_told_in_a_line(
    root: Path, capsys: pytest.CaptureFixture[str], typed: list[str], told: str
) -> None:
    before = sorted(root.parent.rglob("*"))
    assert main(["pack", *(word.format(root=root) for word in typed)]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {told.format(root=root)}")
    assert sorted(root.parent.rglob("*")) == before


def test_the_command_says_how_the_shards_are_used(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pack", str(root), "--shards", "2"]) == 0
    said = capsys.readouterr().out.splitlines()
    shown = f"{root}_shards"
    assert said[-1] == f"{shown}: 117 images (90 train in 2, 27 test in 1); dataset=webdataset dataset.root={shown}"
    assert len(shards(shown).test) == 27


def test_progress_is_told(root: Path, tmp_path: Path) -> None:
    notes = Notes()
    packed(root, tmp_path / "packed", watch=notes)
    assert notes.titles == ["packing 117 images into 4 shards"]


def test_an_output_that_appears_by_a_link_is_refused(root: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(SettingError, match="is there already"):
        packed(root, tmp_path / "link")
