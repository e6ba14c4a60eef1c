"""Every file that is bad is told of before anything is decoded for use, once, and left out only if that was asked."""

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data.opening import opened
from tests.watching import Notes, Watched
from tl_experiments.data.bad_images import FILE, keep_list
from tl_experiments.data.check_store import check_store
from tl_experiments.data.dataset_images import DatasetImages, load_dataset_images
from tl_experiments.data.reading import check_split, read_split
from tl_experiments.data.source import Dataset, Split
from tl_experiments.data.transforms import Canvas
from tl_experiments.runtime.errors import DataError
from tl_experiments.runtime.row_store import RowStore

CANVAS = Canvas(size=16, crop=14, interpolation="bilinear")
SIX = {f"{split}/{name}": 12 for split in ("train", "val", "test") for name in ("cat", "dog")}


def loaded(dataset: Dataset, *, notes: Notes | None = None, checks: RowStore | None = None) -> DatasetImages:
    return load_dataset_images(
        dataset, canvas=CANVAS, workers=0, memory_bytes=10**9, store=None, checks=checks, watch=notes or Notes()
    )


@pytest.fixture
def checks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RowStore:
    """A store of its own."""
    monkeypatch.setenv("TL_CACHE_DIR", str(tmp_path / "cache"))
    return check_store(notice=pytest.fail)


@pytest.fixture
def root(make_folder: Callable[..., Path], tmp_path: Path) -> Path:
    return make_folder(SIX, tmp_path / "root")


def damage(path: Path) -> Path:
    """Cut a file that begins well."""
    path.write_bytes(path.read_bytes()[:50])
    return path


def checked(notes: Notes) -> list[str]:
    return [title for title in notes.titles if title.startswith("checking")]


def test_what_is_known_to_decode_is_not_decoded_again(root, checks):
    first, again, renamed, new = Notes(), Notes(), Notes(), Notes()
    loaded(opened(root), notes=first, checks=checks)
    assert checked(first) == [f"checking 24 {split} images" for split in ("train", "val", "test")]
    loaded(opened(root), notes=again, checks=checks)
    assert checked(again) == []
    for path in (root / "val").rglob("*.png"):
        path.rename(path.with_name(f"renamed-{path.name}"))
    loaded(opened(root), notes=renamed, checks=checks)
    assert checked(renamed) == []
    Image.new("RGB", (3, 3), "red").save(root / "test" / "cat" / "new.png")
    loaded(opened(root), notes=new, checks=checks)
    assert checked(new) == ["checking 1 test images"]


def test_what_is_known_to_be_bad_is_named_again_by_each_of_its_names(root, checks):
    bad = damage(root / "train" / "cat" / "3.png")
    (root / "train" / "cat" / "copy.png").write_bytes(bad.read_bytes())
    for _ in range(2):
        with pytest.raises(DataError, match=r"^2 of 73 images cannot be used; ") as caught:
            loaded(opened(root), checks=checks)
        assert [line.split(":")[0].strip() for line in str(caught.value).splitlines()[1:]] == [
            "train/cat/3.png", "train/cat/copy.png",
        ]  # fmt: skip


def test_all_bad_images_of_all_splits_are_told_at_once(root):
    for split in ("train", "val", "test"):
        damage(root / split / "cat" / "1.png")
        for index in range(2, 6):
            (root / split / "dog" / f"{index}.png").write_bytes(b"")
    with pytest.raises(DataError) as caught:
        loaded(opened(root))
    head, *listed, more = str(caught.value).splitlines()
    assert head == (
        f"15 of 72 images cannot be used; replace or remove them (tlx scan {root} lists all), "
        "or leave them out by dataset.on_bad_image=skip:"
    )
    assert len(listed) == 10
    assert "  train/cat/1.png: cannot be read as an image (" in listed[0]
    assert listed[1] == "  train/dog/2.png: the file is empty; replace or remove it"
    assert more == "  and 5 more"


def test_what_is_skipped_moves_no_other_image(make_folder, tmp_path):
    """The splits are those of all images, less what is bad."""
    root = make_folder({"cat": 40, "dog": 40}, tmp_path / "root")
    whole = loaded(opened(root))
    bad = {images.names[at] for images in (whole.train, whole.val, whole.test) for at in (0, 3)}
    for name in bad:
        damage(root / name)
    notes = Notes()
    rest = loaded(opened(root, on_bad_image="skip"), notes=notes)
    for before, after in ((whole.train, rest.train), (whole.val, rest.val), (whole.test, rest.test)):
        kept = [at for at, name in enumerate(before.names) if name not in bad]
        assert tuple(after.names) == tuple(before.names[at] for at in kept)
        assert tuple(after.digests) == tuple(before.digests[at] for at in kept)
        assert after.labels.tolist() == before.labels[kept].tolist()
        [batch] = after.batches([np.array([1])])
        [same] = before.batches([np.array([kept[1]])])
        np.testing.assert_array_equal(batch.numpy(), same.numpy())
    assert {image.name for image in rest.skipped} == bad
    [notice] = notes.notices
    assert notice.startswith(
        "6 of 80 images are left out (dataset.on_bad_image=skip), all listed in skipped_images.csv"
    )


def test_a_dataset_with_skipped_images_is_the_dataset_without_them(root):
    whole = loaded(opened(root)).fingerprint
    bad = damage(root / "test" / "dog" / "7.png")
    skipped = loaded(opened(root, on_bad_image="skip")).fingerprint
    bad.unlink()
    assert loaded(opened(root)).fingerprint == skipped != whole


@pytest.mark.parametrize(
    ("spoilt", "message"),
    [
        ([f"val/{name}/{index}" for name in ("cat", "dog") for index in range(7)], "14 of 24 val images .* than half"),
        ([f"test/cat/{index}" for index in range(12)], "would leave no test image of cat; mend"),
        ([f"train/dog/{index}" for index in range(12)], "would leave no train image of dog; mend"),
    ],
    ids=["more than half", "test without a class", "train without a class"],
)
def test_too_much_is_not_skipped(root, spoilt, message):
    for name in spoilt:
        (root / f"{name}.png").write_bytes(b"")
    with pytest.raises(DataError, match=message):
        loaded(opened(root, on_bad_image="skip"))


def test_half_of_a_split_may_be_skipped(root):
    for name in ("cat", "dog"):
        for index in range(6):
            (root / "val" / name / f"{index}.png").write_bytes(b"")
    assert len(loaded(opened(root, on_bad_image="skip")).val) == 12


def test_a_file_that_changes_between_reading_and_checking_is_told(root, checks):
    """Its verdict would be kept under the digest of the earlier one."""
    reading = read_split(opened(root).train, workers=0, on_progress=lambda *_: None)
    damage(root / "train" / "cat" / "0.png")
    with pytest.raises(DataError, match=r"train/cat/0\.png: has changed"):
        check_split(reading, workers=0, store=checks, work=Notes().work)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("workers", [0, 2])
def test_workers_find_the_same(root, workers):
    damage(root / "train" / "dog" / "7.png")
    reading = read_split(opened(root).train, workers=workers, on_progress=lambda *_: None)
    found = check_split(reading, workers=workers, store=None, work=Notes().work)
    assert [(at, fault.kind) for at, fault in found.faults.items()] == [(21, "undecodable")]
    assert found.split.source.name(21) == "train/dog/7.png"


def test_pixels_in_memory_are_not_checked(make_split):
    split = make_split(12)
    source = Watched(split.source)
    parts = [Split(name, source, np.arange(at, at + 6)) for name, at in (("train", 0), ("val", 3), ("test", 6))]
    notes = Notes()
    loaded(Dataset("test", ("x", "y", "z"), *parts), notes=notes)
    assert source.decoded == []
    assert checked(notes) == []


def test_images_that_occur_twice_are_told_of(root):
    copies = {
        "val/cat/7.png": "train/cat/0.png",
        "test/cat/8.png": "train/cat/0.png",
        "train/dog/9.png": "train/cat/2.png",
    }
    for copy, original in copies.items():
        (root / copy).write_bytes((root / original).read_bytes())
    notes = Notes()
    loaded(opened(root), notes=notes)
    more = f"; tlx scan {root} lists all"
    assert notes.notices == [
        "warning: images in more than one split, whose scores show memory: 2, such as val/cat/7.png, "
        f"the same as train/cat/0.png{more}",
        f"warning: images under more than one class: 1, such as train/dog/9.png, the same as train/cat/2.png{more}",
    ]


def test_a_copy_in_the_same_split_and_class_is_nothing_to_tell(root):
    (root / "train" / "cat" / "copy.png").write_bytes((root / "train" / "cat" / "0.png").read_bytes())
    notes = Notes()
    loaded(opened(root), notes=notes)
    assert notes.notices == []


def test_a_class_that_val_lacks_is_told_of(root):
    for path in (root / "val" / "cat").iterdir():
        path.unlink()
    (root / "val" / "cat").rmdir()
    notes = Notes()
    assert set(loaded(opened(root), notes=notes).val.labels.tolist()) == {1}
    assert notes.notices == ["warning: val has no image of 1 of train's classes: cat"]


def test_the_list_of_what_was_skipped_is_that_of_the_last_run(root, tmp_path):
    damage(root / "train" / "cat" / "3.png")
    images = loaded(opened(root, on_bad_image="skip"))
    [path] = keep_list(images.skipped, tmp_path)
    assert path == tmp_path / FILE
    title, line = csv.reader(path.open(encoding="utf-8", newline=""))
    assert title == ["split", "image", "reason"]
    assert line[:2] == ["train", "train/cat/3.png"]
    assert line[2].startswith("cannot be read as an image (")
    assert keep_list(replace(images, skipped=()).skipped, tmp_path) == []
    assert not path.exists()
