"""Reading decodes nothing; canvases come in the order asked for, with the same bytes wherever they come from."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.data.opening import opened
from tests.watching import Notes
from tl_experiments.data.dataset_images import load_dataset_images
from tl_experiments.data.image_files import read_image_file
from tl_experiments.data.images import Images, fingerprint, load_images
from tl_experiments.data.source import ArraySource, Dataset, Split
from tl_experiments.data.transforms import Canvas, draw
from tl_experiments.runtime.errors import DataError

CANVAS = Canvas(size=16, crop=14, interpolation="bilinear")
CPU, META = torch.device("cpu"), torch.device("meta")  # meta: somewhere else, without a GPU
ORDER = [np.array([5, 0, 69]), np.array([1]), np.array([44, 3])]


def loaded(split: Split, *, workers: int = 0, memory_bytes: int = 10**9) -> Images:
    return load_images(split, canvas=CANVAS, workers=workers, memory_bytes=memory_bytes)


def silent(title: str) -> Callable[[int, int], None]:  # noqa: ARG001
    return lambda done, total: None  # noqa: ARG005


def decoded(images: Images, *, device: torch.device = CPU) -> Images:
    images.decode(device=device, work=silent)
    return images


def expected(split: Split, positions: np.ndarray) -> np.ndarray:
    return np.stack([draw(split.source.image(int(split.indices[position])), CANVAS) for position in positions])


@pytest.mark.parametrize(
    ("memory_bytes", "decode"), [(10**9, True), (0, True), (10**9, False)], ids=["kept", "too large", "on demand"]
)
@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_the_canvases_in_order(make_split, workers, memory_bytes, decode):
    split = make_split(70)
    images = loaded(split, workers=workers, memory_bytes=memory_bytes)
    if decode:
        decoded(images)
    batches = list(images.batches(ORDER))
    assert [len(batch) for batch in batches] == [3, 1, 2]
    for positions, batch in zip(ORDER, batches, strict=True):
        assert batch.dtype == torch.uint8
        np.testing.assert_array_equal(batch.numpy(), expected(split, positions))
    assert list(images.batches([])) == []


def test_positions_count_within_the_split(make_split):
    whole = make_split(20)
    part = Split("val", whole.source, np.array([4, 9, 14]))
    images = loaded(part)
    assert len(images) == 3
    assert tuple(images.names) == ("random/4", "random/9", "random/14")
    assert images.labels.tolist() == [1, 0, 2]
    assert tuple(images.digests) == tuple(hashlib.sha256(whole.source.content(i)).hexdigest() for i in (4, 9, 14))
    for some in (images, decoded(loaded(part))):
        (batch,) = some.batches([np.array([2])])
        np.testing.assert_array_equal(batch[0].numpy(), draw(whole.source.image(14), CANVAS))


def test_reading_decodes_nothing(watched):
    split, seen = watched(12)
    images = loaded(split)
    assert len(set(images.digests)) == len(images) == 12
    assert seen == []


def test_only_what_is_asked_for_is_decoded(watched):
    split, seen = watched(12)
    batches = loaded(split).batches([np.array([3]), np.array([7, 1])])
    assert len(next(batches)) == 1
    assert seen == [3]
    assert len(next(batches)) == 2
    assert seen == [3, 7, 1]


def test_what_is_kept_is_decoded_once(watched):
    split, seen = watched(40)
    images = decoded(decoded(loaded(split)))
    list(images.batches([np.arange(40), np.array([2])]))
    assert seen == list(range(40))


def test_what_does_not_fit_is_decoded_when_it_is_asked_for_alone(watched):
    split, seen = watched(40)
    images = decoded(loaded(split, memory_bytes=0))
    list(images.batches([np.array([2, 9])]))
    assert seen == [2, 9]


@pytest.mark.parametrize(("short", "drawn"), [(0, [*range(10)]), (1, [4])], ids=["fits", "a byte too large"])
def test_memory_is_kept_up_to_the_limit(watched, short, drawn):
    split, seen = watched(10)
    images = decoded(loaded(split, memory_bytes=10 * 3 * 16 * 16 - short))
    assert images.fit == (not short)
    list(images.batches([np.array([4])]))
    assert seen == drawn


def test_memory_is_given_to_train_first(make_split):
    whole = make_split(12)
    parts = (("train", 0, 6), ("val", 6, 10), ("test", 10, 12))
    train, val, test = (Split(name, whole.source, np.arange(start, end)) for name, start, end in parts)
    told: list[tuple[str, int, int]] = []

    class Told(Notes):
        def work(self, title: str) -> Callable[[int, int], None]:
            return lambda done, total: told.append((title, done, total))

    images = load_dataset_images(
        Dataset("test", ("x", "y", "z"), train, val, test),
        canvas=CANVAS,
        workers=0,
        memory_bytes=8 * CANVAS.num_bytes,
        store=None,
        checks=None,
        watch=Told(),
    )
    assert [part.fit for part in (images.train, images.val, images.test)] == [True, False, True]
    assert told == [("reading 12 images", done, 12) for done in (6, 10, 12)]


@pytest.mark.parametrize("keep", [True, False], ids=["kept", "on demand"])
def test_canvases_come_on_the_device_that_is_asked_for(make_split, keep):
    images = loaded(make_split(8))
    if keep:
        decoded(images)
    (batch,) = images.batches([np.array([1, 0, 5])], device=META)
    assert (batch.device, batch.shape, batch.dtype) == (META, (3, 3, 16, 16), torch.uint8)


def test_canvases_are_kept_on_the_device(make_split):
    """What lies on `meta` cannot be copied back."""
    images = decoded(loaded(make_split(8)), device=META)
    with pytest.raises(NotImplementedError, match="meta"):
        next(images.batches([np.array([1, 0, 5])], device=CPU))


def test_positions_go_to_the_device_once_for_all_batches(make_split, monkeypatch):
    images = decoded(loaded(make_split(8)), device=META)
    copied: list[tuple[torch.dtype, torch.device]] = []

    def noting(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
        if tensor.device != device:
            copied.append((tensor.dtype, device))
        return tensor.to(device)

    monkeypatch.setattr("tl_experiments.data.canvases.to_device", noting)
    batches = list(images.batches([np.array([1, 0, 5]), np.array([2, 7])], device=META))
    assert [batch.shape for batch in batches] == [(3, 3, 16, 16), (2, 3, 16, 16)]
    assert copied == [(torch.int64, META)]


@pytest.mark.gpu
@pytest.mark.parametrize("memory_bytes", [10**9, 0], ids=["kept", "streamed"])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_gpu_holds_the_same_bytes(make_split, workers, memory_bytes):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    device, split = torch.device("cuda"), make_split(70)
    images = decoded(loaded(split, workers=workers, memory_bytes=memory_bytes), device=device)
    for positions, batch in zip(ORDER, images.batches(ORDER, device=device), strict=True):
        assert batch.is_cuda
        np.testing.assert_array_equal(batch.cpu().numpy(), expected(split, positions))


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("workers", [0, 2])
def test_what_cannot_be_read_is_named_by_reading(make_folder, workers):
    split = opened(root := make_folder({"a": 40, "b": 40})).train
    name = split.source.name(int(split.indices[40]))
    (root / name).unlink()
    with pytest.raises(DataError, match=f"{name}: cannot be read") as caught:
        loaded(split, workers=workers)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("keep", [True, False], ids=["kept", "on demand"])
@pytest.mark.parametrize(
    ("kept_bytes", "told"),
    [(0, "the file is empty"), (50, "cannot be read as an image")],
    ids=["empty", "damaged further on"],
)
def test_a_damaged_image_is_named_by_decoding(make_folder, workers, keep, kept_bytes, told):
    split = opened(root := make_folder({"a": 40, "b": 40})).train
    damaged = root / split.source.name(int(split.indices[40]))
    damaged.write_bytes(damaged.read_bytes()[:kept_bytes])
    images = loaded(split, workers=workers)
    with pytest.raises(DataError, match=f"{damaged}: {told}") as caught:
        decoded(images) if keep else list(images.batches([np.array([3]), np.array([40])]))
    assert "\n" not in str(caught.value)


def test_an_image_is_read_once_to_be_known_and_once_to_be_drawn(make_folder, monkeypatch):
    split = opened(make_folder({"a": 10, "b": 10})).train
    read, begun = [], []

    def reading(path: Path, *, within: Path | None) -> bytes:
        read.append(path)
        return read_image_file(path, within=within)

    def opening(file, **options) -> Image.Image:
        begun.append(file)
        return real_open(file, **options)

    real_open = Image.open
    monkeypatch.setattr("tl_experiments.data.file_source.read_image_file", reading)
    monkeypatch.setattr(Image, "open", opening)
    images = loaded(split, memory_bytes=0)
    assert (len(read), len(begun)) == (len(split), 0)
    list(images.batches([np.array([3, 0])]))
    assert (len(read), len(begun)) == (len(split) + 2, 2)


def test_an_image_that_changes_while_the_run_goes_on_is_named(make_folder):
    """Its canvas would be kept under the digest of the earlier one."""
    split = opened(root := make_folder({"a": 5, "b": 5})).train
    images = loaded(split)
    name = split.source.name(int(split.indices[2]))
    Image.new("RGB", (6, 5), (1, 2, 3)).save(root / name)
    with pytest.raises(DataError, match=f"{name}: has changed since the run began"):
        decoded(images)


def test_loading_leaves_the_global_generator_alone(make_split):
    """Otherwise dropout would depend on the number of workers."""
    before = torch.get_rng_state()
    list(decoded(loaded(make_split(40), workers=2, memory_bytes=0)).batches([np.arange(4), np.arange(2)]))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("batches", "here"), [([[1, 2]], [1, 2]), ([[1], [2]], [])])
def test_a_single_batch_starts_no_worker(watched, batches, here):
    split, drawn = watched(4)
    images = loaded(split, workers=2, memory_bytes=0)
    assert len(list(images.batches(np.array(batch) for batch in batches))) == len(batches)
    assert drawn == here


def test_progress_counts_up_to_the_whole(make_split):
    read: list[tuple[int, int]] = []
    split = make_split(300)
    images = load_images(
        split, canvas=CANVAS, workers=0, memory_bytes=10**9, on_progress=lambda *counts: read.append(counts)
    )
    drawn: list[tuple[str, int, int]] = []
    images.decode(device=CPU, work=lambda title: lambda *counts: drawn.append((title, *counts)))
    for counts in (read, [counts for _, *counts in drawn]):
        assert [done for done, _ in counts] == sorted({done for done, _ in counts})
        assert tuple(counts[-1]) == (300, 300)
        assert len(counts) > 1
    assert {title for title, *_ in drawn} == {"decoding 300 train images"}


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


def test_a_split_has_a_fingerprint_of_its_contents_in_order_alone(make_split):
    split = make_split(num_images=4)
    known = loaded(split).fingerprint
    relabelled = Split("val", ArraySource(split.source.pixels, 1 - split.source.labels, "other"), split.indices)
    assert loaded(relabelled).fingerprint == known
    assert loaded(Split("test", split.source, split.indices[::-1].copy())).fingerprint != known
    assert loaded(Split("test", split.source, split.indices[:-1])).fingerprint != known


def test_the_fingerprint_stays_the_same_from_version_to_version():
    pixels = np.arange(12 * 4 * 4 * 3).reshape(12, 4, 4, 3).astype(np.uint8)
    split = Split("train", ArraySource(pixels, np.arange(12, dtype=np.int64) % 3, "x"), np.arange(12))
    assert identity(split) == "16217e820974775d3b1d5cb7e2d6048d80007d509c62efd9fb159e174684cbe0"
