"""A folder of images becomes three splits by rule, and a malformed one is refused in one line that names the place."""

import os
from pathlib import Path

import numpy as np
import pytest

from tests.data.opening import opened
from tl_experiments.data.decoding import ImageError
from tl_experiments.data.source import Split
from tl_experiments.runtime.errors import DataError


def names(split: Split) -> set[str]:
    return {split.source.name(int(index)) for index in split.indices}


def test_one_folder_of_classes_is_split_by_seed(make_folder, tmp_path):
    dataset = opened(make_folder({"cat": 20, "dog": 10}))
    assert dataset.class_names == ("cat", "dog")
    assert [np.bincount(split.labels).tolist() for split in (dataset.train, dataset.val, dataset.test)] == [
        [12, 6],
        [4, 2],
        [4, 2],
    ]
    assert len(names(dataset.train) | names(dataset.val) | names(dataset.test)) == 30
    assert names(dataset.test) == names(opened(tmp_path).test)
    assert names(dataset.test) != names(opened(tmp_path, split_seed=1).test)


def test_labels_and_names_belong_to_the_images(make_folder, tmp_path):
    train = opened(make_folder({"cat": 8, "dog": 8})).train
    for index, label in zip(train.indices.tolist(), train.labels.tolist(), strict=True):
        assert train.source.name(index).startswith(("cat", "dog")[label] + "/")
        path = tmp_path / train.source.name(index)
        assert train.source.content(index) == path.read_bytes()
        assert train.source.image(index).getpixel((0, 0))[0] == int(path.stem)


@pytest.mark.parametrize("val", ["val", "valid", "validation", "Val"])
def test_given_splits_are_used_and_labelled_by_name(make_folder, val):
    """Test lacks class a: its b must still be label 1."""
    root = make_folder({"train/a": 5, "train/b": 5, f"{val}/a": 2, f"{val}/b": 2, "test/b": 3})
    dataset = opened(root)
    assert [len(dataset.train), len(dataset.val), len(dataset.test)] == [10, 4, 3]
    assert dataset.test.labels.tolist() == [1, 1, 1]
    assert names(dataset.test) == {"test/b/0.png", "test/b/1.png", "test/b/2.png"}


def test_missing_splits_come_from_train(make_folder):
    dataset = opened(make_folder({"train/a": 10, "train/b": 10, "val/a": 1}))
    assert [len(dataset.train), len(dataset.val), len(dataset.test)] == [16, 1, 4]
    assert all(name.startswith("train/") for name in names(dataset.test))


def test_classes_are_in_natural_order(make_folder):
    dataset = opened(make_folder(dict.fromkeys(["10", "2", "1", "b", "A"], 4)))
    assert dataset.class_names == ("1", "2", "10", "A", "b")


def test_hidden_and_foreign_files_are_ignored(make_folder):
    root = make_folder({"a": 5, "b": 5, ".ipynb_checkpoints": 3, "a/.thumbs": 2})
    for file in ("a/.DS_Store", "a/._0.png", "b/Thumbs.db", "b/notes.txt", "README.md"):
        (root / file).write_bytes(b"no image")
    dataset = opened(root)
    found = names(dataset.train) | names(dataset.val) | names(dataset.test)
    assert found == {f"{label}/{index}.png" for label in "ab" for index in range(5)}


def test_images_in_deeper_folders_belong_to_the_class(make_folder):
    dataset = opened(make_folder({"a/2023": 3, "a/2024": 3, "b": 6}))
    assert dataset.class_names == ("a", "b")
    assert sum(np.bincount(split.labels)[0] for split in (dataset.train, dataset.val, dataset.test)) == 6


@pytest.fixture
def linked(make_folder, tmp_path) -> Path:
    """A root with a link to a file inside it, and a file and a folder outside it."""
    root = make_folder({"a": 5, "b": 5}, tmp_path / "root")
    disk = make_folder({"cow": 4}, tmp_path / "disk")
    (root / "a" / "inside.png").symlink_to(root / "b" / "0.png")
    (root / "a" / "outside.png").symlink_to(disk / "cow" / "0.png")
    (root / "cow").symlink_to(disk / "cow")
    return root


def test_links_out_of_the_root_are_followed_if_they_may_be(linked):
    dataset = opened(linked, follow_links=True)
    found = names(dataset.train) | names(dataset.val) | names(dataset.test)
    expected = {f"{label}/{index}.png" for label in "ab" for index in range(5)}
    assert found == expected | {"a/inside.png", "a/outside.png"} | {f"cow/{index}.png" for index in range(4)}
    for split in (dataset.train, dataset.val, dataset.test):
        assert all(split.source.content(int(index)) for index in split.indices)


def test_links_do_not_leave_the_root_by_themselves(linked):
    told = r"root/cow: the link leaves the folder, to .*/disk/cow; .* dataset\.follow_links=true$"
    with pytest.raises(DataError, match=told):
        opened(linked)
    (linked / "cow").unlink()
    train = opened(linked, train_size=None).train
    at = {train.source.name(index): index for index in range(len(train.source))}
    assert train.source.content(at["a/inside.png"]) == (linked / "b" / "0.png").read_bytes()
    for read in (train.source.content, train.source.image):
        with pytest.raises(ImageError, match=r"a/outside\.png: the link leaves the folder, to .*/disk/cow/0\.png; "):
            read(at["a/outside.png"])


def test_a_folder_may_be_deeper_than_calls_may_be(make_folder):
    root = make_folder({"a": 5, "b": 5})
    deepest = root / "a"
    for _ in range(1200):
        (deepest := deepest / "d").mkdir()
    (deepest / "0.png").write_bytes((root / "a" / "0.png").read_bytes())
    try:
        train = opened(root).train
        assert len(train.source) == 11
        assert f"a/{'d/' * 1200}0.png" in {train.source.name(index) for index in range(11)}
    finally:  # which removing a folder in one call does not manage either
        (deepest / "0.png").unlink()
        while deepest != root / "a":
            deepest.rmdir()
            deepest = deepest.parent


def test_a_folder_is_entered_once_however_links_lead_to_it(make_folder):
    root = make_folder({"a": 5, "b": 5})
    (root / "b" / "loop").symlink_to(root)
    (root / "b" / "again").symlink_to(root / "b")
    (root / "b" / "deeper").mkdir()
    (root / "b" / "deeper" / "up").symlink_to("..")
    dataset = opened(root)
    found = [split.source.name(int(at)) for split in (dataset.train, dataset.val, dataset.test) for at in split.indices]
    assert sorted(found) == [f"{label}/{index}.png" for label in "ab" for index in range(5)]


@pytest.mark.parametrize("target", ["nowhere", "broken"], ids=["broken", "to itself"])
def test_a_link_that_leads_nowhere_is_named(make_folder, target):
    """One that is called as an image is told of with all other images that are bad."""
    root = make_folder({"a": 5, "b": 5})
    (root / "b" / "broken").symlink_to(root / "b" / target)
    with pytest.raises(DataError, match=r"b/broken: the link leads nowhere; repair or remove it"):
        opened(root)


def test_a_link_to_a_split_that_is_gone_is_named(make_folder, tmp_path):
    """Otherwise a part of train would silently be taken for it."""
    root = make_folder({"train/a": 5, "train/b": 5})
    (root / "test").symlink_to(tmp_path / "gone")
    with pytest.raises(DataError, match=r"/test: the link leads nowhere"):
        opened(root)


def test_val_is_labelled_by_name_whichever_classes_it_lacks(make_folder):
    """By position, val's c would be taken for b."""
    root = make_folder({"train/a": 3, "train/b": 3, "train/c": 3, "val/c": 2, "val/a": 1, "test/b": 1})
    dataset = opened(root)
    assert dataset.val.labels.tolist() == [0, 2, 2]
    assert dataset.test.labels.tolist() == [1]


def test_names_that_are_no_text_can_be_printed(make_folder):
    root = make_folder({"a": 4, "b": 4, "Ünï çødé 图": 4})
    odd = os.fsencode(root / "a") + b"/new\nline \xff \x1b[1m.png"
    Path(os.fsdecode(odd)).write_bytes((root / "a" / "0.png").read_bytes())
    train = opened(root).train
    found = [train.source.name(index) for index in range(len(train.source))]
    assert r"a/new\nline \udcff \x1b[1m.png" in found
    assert "Ünï çødé 图/0.png" in found
    "".join(found).encode()
    train.source.image(found.index(r"a/new\nline \udcff \x1b[1m.png"))


def test_the_root_itself_may_be_a_link(make_folder, tmp_path):
    root = make_folder({"a": 4, "b": 4}, tmp_path / "real")
    (tmp_path / "link").symlink_to(root)
    assert names(opened(tmp_path / "link").train) == names(opened(root).train)


def test_train_size_leaves_val_and_test_alone(make_folder):
    root = make_folder({"a": 20, "b": 20})
    small, whole = opened(root, train_size=6), opened(root)
    assert len(small.train) == 6
    assert names(small.train) < names(whole.train)
    assert names(small.val) == names(whole.val)
    assert names(small.test) == names(whole.test)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({}, "no folders in it, so no images"),
        ({"a": 0, "b": 0}, "no images in its folders"),
        ({"a": 3, "b": 0}, "/b: empty class folder; add images .* or remove it"),
        ({"a": 3, "b": 0, "c": 0}, r"/b: empty class folder; .* \(1 more; tlx scan .* lists all\)"),
        ({"a": 5}, r"found one class \(a\)"),
        ({"a": 5, "b": 2}, r"'b' has too few images to split off a val set \(found 1\)"),
        ({"val/a": 3, "test/a": 3}, "no train/"),
        ({"train": 3, "val": 3}, "train: no class folders"),
        ({"train/a": 3, "train/b": 3, "val/a": 1, "valid/a": 1}, "two folders for one split"),
        ({"train/a": 3, "train/b": 3, "test/c": 1}, "test/c: test has a class that train has not; add or remove it"),
        ({"train/a": 3, "train/b": 0, "val/a": 1}, "/train/b: empty class folder"),
        ({"train/a": 3, "train/b": 3, "val/a": 1, "val/b": 0}, "/val/b: empty class folder"),
        ({"train/a": 3, "train/b": 3, "val/b": 1, "val/c": 1}, "/val/c: val has a class that train has not"),
    ],
)
def test_malformed_folders_are_refused(make_folder, counts, message):
    with pytest.raises(DataError, match=message) as caught:
        opened(make_folder(counts))
    assert "\n" not in str(caught.value)


def test_a_missing_root_is_named(tmp_path):
    with pytest.raises(DataError, match=r"dataset\.root=.*nowhere: no such folder"):
        opened(tmp_path / "nowhere")


def test_a_file_that_vanished_is_named(make_folder, tmp_path):
    train = opened(make_folder({"a": 4, "b": 4})).train
    (tmp_path / train.source.name(int(train.indices[0]))).unlink()
    with pytest.raises(DataError, match=train.source.name(int(train.indices[0]))):
        train.source.image(int(train.indices[0]))
