"""Images come in the order asked for, with the same bytes for any number of workers, in memory or streamed."""

import hashlib

import numpy as np
import pytest
import torch

from tl_experiments.data.folder import image_folder
from tl_experiments.data.images import Images, fingerprint, load_images
from tl_experiments.data.source import Dataset, Split
from tl_experiments.data.transforms import Canvas, draw
from tl_experiments.runtime.errors import DataError

CANVAS = Canvas(size=16, crop=14, interpolation="bilinear")
ORDER = [np.array([5, 0, 69]), np.array([1]), np.array([44, 3])]


def loaded(split: Split, *, workers: int = 0, memory_bytes: int = 10**9) -> Images:
    return load_images(split, canvas=CANVAS, workers=workers, memory_bytes=memory_bytes)


@pytest.mark.parametrize("memory_bytes", [10**9, 0], ids=["kept", "streamed"])
@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_the_canvases_in_order(make_split, workers, memory_bytes):
    split = make_split(70)
    images = loaded(split, workers=workers, memory_bytes=memory_bytes)
    assert images.in_memory == bool(memory_bytes)
    batches = list(images.batches(ORDER))
    assert [len(batch) for batch in batches] == [3, 1, 2]
    for positions, batch in zip(ORDER, batches, strict=True):
        expected = [draw(split.source.image(int(position)), CANVAS) for position in positions]
        assert batch.dtype == torch.uint8
        np.testing.assert_array_equal(batch.numpy(), np.stack(expected))


def test_positions_count_within_the_split(make_split):
    whole = make_split(20)
    part = Split("val", whole.source, np.array([4, 9, 14]))
    images = loaded(part)
    assert len(images) == 3
    assert images.names == ("random/4", "random/9", "random/14")
    assert images.labels.tolist() == [1, 0, 2]
    assert images.digests == tuple(hashlib.sha256(whole.source.content(i)).hexdigest() for i in (4, 9, 14))
    (batch,) = images.batches([np.array([2])])
    np.testing.assert_array_equal(batch[0].numpy(), draw(whole.source.image(14), CANVAS))


def test_memory_is_kept_up_to_the_limit(make_split):
    need = 10 * 3 * 16 * 16
    assert loaded(make_split(10), memory_bytes=need).in_memory
    assert not loaded(make_split(10), memory_bytes=need - 1).in_memory


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("memory_bytes", [10**9, 0], ids=["kept", "streamed"])
def test_a_damaged_image_is_named_before_training(make_folder, workers, memory_bytes):
    root = make_folder({"a": 40, "b": 40})
    dataset = image_folder(
        root=str(root), train_size=None, val_fraction=0.1, test_fraction=0.1, split_seed=0, crop_pct=None
    )
    damaged = root / dataset.train.source.name(int(dataset.train.indices[50]))
    damaged.write_bytes(damaged.read_bytes()[:50])
    with pytest.raises(DataError, match=f"{damaged}: cannot be read as an image") as caught:
        loaded(dataset.train, workers=workers, memory_bytes=memory_bytes)
    assert "\n" not in str(caught.value)


def test_loading_leaves_the_global_generator_alone(make_split):
    """Otherwise dropout would depend on the number of workers."""
    before = torch.get_rng_state()
    list(loaded(make_split(40), workers=2, memory_bytes=0).batches([np.arange(4)]))
    assert torch.equal(torch.get_rng_state(), before)


def test_progress_counts_up_to_the_whole(make_split):
    seen: list[tuple[int, int]] = []
    load_images(
        make_split(70),
        canvas=CANVAS,
        workers=0,
        memory_bytes=0,
        on_progress=lambda done, total: seen.append((done, total)),
    )
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    assert seen[-1] == (70, 70)
    assert len(seen) > 1


def identity(train: Split, *, class_names: tuple[str, ...] = ("x", "y", "z")) -> str:
    dataset = Dataset("test", class_names, train, train, train)
    return fingerprint(dataset, loaded(train), loaded(train))


def test_the_fingerprint_is_that_of_content_labels_and_order(make_split):
    split = make_split(12)
    same = identity(split)
    assert same == identity(make_split(12))
    assert len(same) == 64
    assert same != identity(split, class_names=("x", "z", "y"))
    assert same != identity(Split("train", split.source, split.indices[::-1].copy()))
    assert same != identity(Split("train", split.source, split.indices[:-1]))
    assert same != identity(make_split(12, num_classes=2))
    split.source.pixels[3, 0, 0, 0] ^= 1
    assert same != identity(split)
