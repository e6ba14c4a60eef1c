"""Features are kept by what their bits depend on: whatever is found is what would be computed, and runs once."""

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.watching import Notes, Watched
from tl_experiments.data.augmentation import Augmentation
from tl_experiments.data.file_source import FileSource
from tl_experiments.data.images import Images, load_images
from tl_experiments.data.source import ArraySource, Split
from tl_experiments.data.transforms import Canvas, Normalise
from tl_experiments.features.extract import View
from tl_experiments.features.store import FeatureStore
from tl_experiments.models.backbone import Backbone
from tl_experiments.models.timm_backbone import timm_backbone
from tl_experiments.runtime.errors import RunFailed
from tl_experiments.runtime.precision import Compute, Precision
from tl_experiments.runtime.row_store import RowStore
from tl_experiments.runtime.share import Share

BATCH_SIZE, NUM_IMAGES, SIZE = 4, 11, 32
CPU = torch.device("cpu")
CANVAS = Canvas(size=36, crop=SIZE, interpolation="bilinear")
NORMALISE = Normalise((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
COMPUTE = Compute(CPU, Precision("fp32", "cpu"), Precision("fp32", "cpu"), "contiguous", infer_batch_size=BATCH_SIZE)
CROPS = Augmentation(hflip_prob=0.5, rotation_degrees=10.0, scale=(0.5, 1.0), ratio=(0.9, 1.1), erase_prob=0.0)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own for every test."""
    monkeypatch.setenv("TL_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def make_backbone(*, seed: int = 0, image_size: int = SIZE) -> Backbone:
    """A small network with convolutions, norms and activations in one."""
    return timm_backbone(
        name="test_efficientnet", weights=None, image_size=image_size, preferred_size=None, seed=seed
    ).eval()


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return make_backbone()


def watched(*, folder: str = "random") -> Watched:
    pixels = np.random.default_rng(0).integers(0, 256, (NUM_IMAGES, 40, 40, 3), dtype=np.uint8)
    return Watched(ArraySource(pixels, np.arange(NUM_IMAGES, dtype=np.int64), folder))


def images_of(
    source: Any, indices: Sequence[int] = range(NUM_IMAGES), *, split: str = "train", memory_bytes: int = 10**9
) -> Images:
    chosen = Split(split, source, np.array(indices, dtype=np.int64))
    return load_images(chosen, canvas=CANVAS, workers=0, memory_bytes=memory_bytes)


def make_store(
    backbone: Backbone, *, cached: bool = True, compute: Compute = COMPUTE, notes: Notes | None = None, **options: Any
) -> FeatureStore:
    """As a run makes it, anew."""
    watch = Notes() if notes is None else notes
    return FeatureStore(backbone, normalise=NORMALISE, compute=compute, cached=cached, watch=watch, **options)


@pytest.fixture(scope="module")
def uncached(backbone: Backbone) -> torch.Tensor:
    """Features of all images, as they are without any cache."""
    return make_store(backbone, cached=False).features(images_of(watched()))


def test_without_a_cache_nothing_is_written(backbone: Backbone, uncached: torch.Tensor, cache: Path) -> None:
    source = watched()
    for _ in range(2):
        assert torch.equal(make_store(backbone, cached=False).features(images_of(source)), uncached)
    assert source.decoded == [*range(NUM_IMAGES)] * 2
    assert not cache.exists()


def test_features_are_the_same_bits_cached_uncached_and_partly_cached(
    backbone: Backbone, uncached: torch.Tensor
) -> None:
    assert torch.equal(make_store(backbone).features(images_of(watched(), [7, 2, 5])), uncached[[7, 2, 5]])
    partly = make_store(backbone).features(images_of(watched()))
    wholly = make_store(backbone).features(images_of(watched()))
    assert (partly.shape, partly.dtype) == ((NUM_IMAGES, backbone.feature_dim), torch.float32)
    assert torch.equal(partly, uncached)
    assert torch.equal(wholly, uncached)
    assert uncached.std(dim=0).max() > 0


def test_a_larger_subset_runs_the_backbone_for_new_images_alone(backbone: Backbone, uncached: torch.Tensor) -> None:
    source, notes = watched(), Notes()
    make_store(backbone, notes=notes).features(images_of(source, [8, 1, 4]))
    assert (source.decoded, notes.titles) == ([8, 1, 4], ["extracting features of 3 train images"])
    features = make_store(backbone, notes=notes).features(images_of(source, [1, 9, 8, 0, 4]))
    assert source.decoded[3:] == [9, 0]
    assert notes.titles[1:] == ["extracting features of 2 train images"]
    assert torch.equal(features, uncached[[1, 9, 8, 0, 4]])


def test_what_another_run_computed_is_read_without_backbone_and_without_decoding(
    backbone: Backbone, uncached: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_store(backbone).features(images_of(watched()))
    monkeypatch.setattr(Backbone, "forward", pytest.fail)
    monkeypatch.setattr("tl_experiments.features.store.make_extractor", pytest.fail)
    source, notes = watched(), Notes()
    for split, indices in (("train", range(NUM_IMAGES)), ("val", [3, 2]), ("test", [])):
        features = make_store(backbone, notes=notes).features(images_of(source, indices, split=split))
        assert torch.equal(features, uncached[list(indices)])
    assert (source.decoded, notes.titles, notes.notices) == ([], [], [])


def test_splits_and_datasets_share_what_they_have_in_common(backbone: Backbone, uncached: torch.Tensor) -> None:
    make_store(backbone).features(images_of(watched(folder="here"), range(6)))
    elsewhere = watched(folder="/somewhere/else")
    features = make_store(backbone).features(images_of(elsewhere, [5, 6, 0], split="test"))
    assert elsewhere.decoded == [6]
    assert torch.equal(features, uncached[[5, 6, 0]])


def test_images_of_equal_content_are_seen_once(backbone: Backbone, uncached: torch.Tensor) -> None:
    source = watched()
    features = make_store(backbone).features(images_of(source, [3, 1, 3, 3]))
    assert source.decoded == [3, 1]
    assert torch.equal(features, uncached[[3, 1, 3, 3]])


def test_views_are_kept_apart_from_each_other_and_from_the_centre(backbone: Backbone, uncached: torch.Tensor) -> None:
    views = [View(CROPS, number, 3) for number in range(3)]
    source, notes = watched(), Notes()
    store, images = make_store(backbone, notes=notes), images_of(source)
    first = [store.features(images, view=view) for view in views]
    extracting = [f"extracting features of 11 train images, view {n} of 3" for n in (1, 2, 3)]
    assert notes.titles == ["decoding 11 train images", *extracting]
    again = [make_store(backbone).features(images_of(source), view=view) for view in views]
    assert source.decoded == [*range(NUM_IMAGES)]
    plain = make_store(backbone, cached=False)
    for view, one, two in zip(views, first, again, strict=True):
        assert torch.equal(one, two)
        assert torch.equal(one, plain.features(images_of(watched()), view=view))
        assert not torch.equal(one, uncached)
    assert not torch.equal(first[0], first[1])
    assert torch.equal(make_store(backbone).features(images_of(source)), uncached)


@pytest.mark.parametrize("cached", [True, False])
def test_images_that_do_not_fit_are_decoded_once_a_view_and_not_once_more(backbone: Backbone, *, cached: bool) -> None:
    source = watched()
    store, images = make_store(backbone, cached=cached), images_of(source, memory_bytes=0)
    for number in range(3):
        store.features(images, view=View(CROPS, number, 3))
    assert source.decoded == [*range(NUM_IMAGES)] * 3


def test_few_new_images_are_decoded_without_the_others(backbone: Backbone) -> None:
    """Unless all views of them together come to more."""
    views, source = [View(CROPS, number, 3) for number in range(3)], watched()
    for indices, decoded in ((range(9), [*range(9)]), (range(11), [9, 10] * 3), (range(11), [])):
        store, images = make_store(backbone), images_of(source, indices)
        source.decoded.clear()
        for view in views:
            store.features(images, view=view)
        assert source.decoded == decoded


def test_more_views_begin_with_those_that_are_known(backbone: Backbone) -> None:
    store, source = make_store(backbone), watched()
    four = [store.features(images_of(source), view=View(CROPS, number, 4)) for number in range(4)]
    source.decoded.clear()
    eight = [store.features(images_of(source), view=View(CROPS, number, 8)) for number in range(4)]
    assert source.decoded == []
    assert all(torch.equal(one, other) for one, other in zip(four, eight, strict=True))
    alone = make_store(backbone, cached=False)
    assert torch.equal(alone.features(images_of(source), view=View(CROPS, 3, 8)), four[3])


def test_two_views_that_mirror_are_not_taken_for_two_of_three(backbone: Backbone) -> None:
    mirrors = Augmentation(hflip_prob=0.5, rotation_degrees=0.0, scale=(1.0, 1.0), ratio=(1.0, 1.0), erase_prob=0.0)
    kept, alone = make_store(backbone), make_store(backbone, cached=False)
    found = {}
    for num_views, number in ((2, 0), (2, 1), (3, 0), (3, 1)):
        view = View(mirrors, number, num_views)
        found[num_views, number] = kept.features(images_of(watched()), view=view)
        assert torch.equal(found[num_views, number], alone.features(images_of(watched()), view=view))
    assert (found[2, 0] != found[2, 1]).any(dim=1).all(), "every image and its mirror image"
    assert not torch.equal(found[3, 0], found[2, 0])


def test_ranks_that_keep_a_share_each_have_seen_every_image_once(
    backbone: Backbone, uncached: torch.Tensor, cache: Path
) -> None:
    sources = [watched() for _ in range(3)]
    computed = []
    for rank, source in enumerate(sources):
        share, images = Share(rank, 3), images_of(source)
        computed.append(make_store(backbone, share=share).keep(images, positions=share.positions(len(images))))
    assert computed == [4, 4, 3]
    assert sorted(index for source in sources for index in source.decoded) == [*range(NUM_IMAGES)]
    source = watched()
    assert torch.equal(make_store(backbone, share=Share(1, 3)).features(images_of(source)), uncached)
    assert source.decoded == []
    shutil.rmtree(cache)
    alone = make_store(backbone, share=Share(1, 3)).features(images_of(source))  # whoever finds nothing computes all
    assert torch.equal(alone, uncached)


def test_features_that_are_only_kept_are_in_memory_by_blocks(
    backbone: Backbone, uncached: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tl_experiments.features.store.KEPT_AT_ONCE", 4)
    filled, fill = [], RowStore.fill
    monkeypatch.setattr(RowStore, "fill", lambda self, rows, *args: filled.append(len(rows)) or fill(self, rows, *args))
    source = watched()
    assert make_store(backbone).keep(images_of(source, [*range(11), 0], memory_bytes=0)) == NUM_IMAGES
    assert filled == [4, 4, 4]
    assert torch.equal(make_store(backbone).features(images_of(source)), uncached)
    assert source.decoded == [*range(NUM_IMAGES)]


def test_who_wants_features_kept_is_told_at_once_that_they_are_not(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("TL_CACHE_DIR", str(tmp_path / "file"))

    def stop(fault: str) -> None:
        raise RunFailed(fault)

    with pytest.raises(RunFailed, match=r"cannot be written \(Not a directory\)$"):
        make_store(backbone, unkept=stop).keep(images_of(watched()))


def test_what_a_user_should_know_is_told_once_for_all_splits_and_views(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("TL_CACHE_DIR", str(tmp_path / "file"))
    notes = Notes()
    store = make_store(backbone, notes=notes)
    for split, view in (("train", View(CROPS, 0, 2)), ("train", View(CROPS, 1, 2)), ("val", None), ("test", None)):
        store.features(images_of(watched(), range(3), split=split), view=view)
    (line,) = notes.notices
    assert "cannot be written" in line


@pytest.mark.parametrize("where", [0, 1000, -1], ids=["first", "middle", "last"])
def test_a_flipped_byte_is_noticed_and_what_it_held_is_computed_again(
    backbone: Backbone, uncached: torch.Tensor, cache: Path, where: int
) -> None:
    make_store(backbone).features(images_of(watched()))
    [payload] = cache.glob("features/*/*.rows")
    data = bytearray(payload.read_bytes())
    data[where] ^= 1
    payload.write_bytes(data)
    source, notes = watched(), Notes()
    assert torch.equal(make_store(backbone, notes=notes).features(images_of(source)), uncached)
    assert len(source.decoded) == 1
    [notice] = notes.notices
    assert "1 of its 11 rows do not match their checksum" in notice
    calm, mended = Notes(), watched()
    assert torch.equal(make_store(backbone, notes=calm).features(images_of(mended)), uncached)
    assert (mended.decoded, calm.notices) == ([], [])


def test_a_run_that_is_stopped_while_it_extracts_keeps_what_it_has(backbone: Backbone, uncached: torch.Tensor) -> None:
    class Stopped(Notes):
        def work(self, title: str) -> Callable[[int, int], None]:  # noqa: ARG002
            def stop(done: int, total: int) -> None:  # noqa: ARG001
                if done > BATCH_SIZE:
                    raise KeyboardInterrupt

            return stop

    with pytest.raises(KeyboardInterrupt):
        make_store(backbone, notes=Stopped()).features(images_of(watched()))
    source = watched()
    assert torch.equal(make_store(backbone).features(images_of(source)), uncached)
    assert source.decoded == [*range(BATCH_SIZE, NUM_IMAGES)] or source.decoded == [*range(2 * BATCH_SIZE, NUM_IMAGES)]


def other_weight(_: Backbone) -> Backbone:
    other = make_backbone()
    with torch.no_grad():
        next(other.parameters()).view(-1)[-1] += 1e-3
    return other


def other_statistic(_: Backbone) -> Backbone:
    other = make_backbone()
    next(buffer for name, buffer in other.named_buffers() if name.endswith("running_mean"))[0] += 1e-3
    return other


@pytest.mark.parametrize("change", [other_weight, other_statistic, lambda _: make_backbone(seed=1)])
def test_other_weights_never_get_the_features_of_these(
    backbone: Backbone, uncached: torch.Tensor, change: Callable[[Backbone], Backbone]
) -> None:
    make_store(backbone).features(images_of(watched()))
    source = watched()
    features = make_store(change(backbone)).features(images_of(source))
    assert len(source.decoded) == NUM_IMAGES
    assert not torch.equal(features, uncached)


def test_neither_the_path_nor_the_time_of_a_file_counts(backbone: Backbone, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 40, 40, 3), dtype=np.uint8)

    def stored(folder: str, *, seconds: int, notes: Notes) -> torch.Tensor:
        root = tmp_path / folder
        root.mkdir()
        for index in range(3):
            file = root / f"{folder}-{index}.png"
            Image.fromarray(pixels[index]).save(file)
            os.utime(file, (seconds, seconds))
        paths = tuple(sorted(file.name for file in root.iterdir()))
        source = FileSource(root, paths, np.arange(3, dtype=np.int64), follow_links=False)
        return make_store(backbone, notes=notes).features(images_of(source, range(3), split=folder))

    first, second = Notes(), Notes()
    here = stored("here", seconds=1_000_000, notes=first)
    there = stored("there", seconds=2_000_000, notes=second)
    assert torch.equal(here, there)
    assert (first.titles, second.titles) == (["extracting features of 3 here images"], [])
