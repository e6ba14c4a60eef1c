"""Features are kept by what their bits depend on: whatever is found is what would be computed, and runs once."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.watching import Notes, Watched
from tl_experiments.data.augmentation import Augmentation
from tl_experiments.data.folder import FileSource
from tl_experiments.data.images import Images, load_images
from tl_experiments.data.source import ArraySource, Split
from tl_experiments.data.transforms import Canvas, Normalise
from tl_experiments.features.extract import View
from tl_experiments.features.key import feature_fields, weights_of
from tl_experiments.features.store import FeatureStore
from tl_experiments.models.backbone import Backbone
from tl_experiments.models.timm_backbone import timm_backbone
from tl_experiments.runtime.fingerprint import fingerprint
from tl_experiments.runtime.precision import Compute, Precision

BATCH_SIZE, NUM_IMAGES, SIZE = 4, 11, 32
CPU = torch.device("cpu")
CANVAS = Canvas(size=36, crop=SIZE, interpolation="bilinear")
NORMALISE = Normalise((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
COMPUTE = Compute(CPU, Precision("fp32", "cpu"), Precision("fp32", "cpu"), "contiguous", infer_batch_size=BATCH_SIZE)
CROPS = Augmentation(hflip_prob=0.5, rotation_degrees=10.0, scale=(0.5, 1.0), ratio=(0.9, 1.1))


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


def images_of(source: Any, indices: Sequence[int] = range(NUM_IMAGES), *, split: str = "train") -> Images:
    chosen = Split(split, source, np.array(indices, dtype=np.int64))
    return load_images(chosen, canvas=CANVAS, workers=0, memory_bytes=10**9)


def make_store(
    backbone: Backbone, *, cached: bool = True, compute: Compute = COMPUTE, notes: Notes | None = None
) -> FeatureStore:
    """As a run makes it, anew."""
    return FeatureStore(
        backbone, normalise=NORMALISE, compute=compute, cached=cached, watch=Notes() if notes is None else notes
    )


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
    store = make_store(backbone, notes=notes)
    first = [store.features(images_of(source), view=view) for view in views]
    assert notes.titles == [f"extracting features of 11 train images, view {n} of 3" for n in (1, 2, 3)]
    again = [make_store(backbone).features(images_of(source), view=view) for view in views]
    plain = make_store(backbone, cached=False)
    for view, one, two in zip(views, first, again, strict=True):
        assert torch.equal(one, two)
        assert torch.equal(one, plain.features(images_of(watched()), view=view))
        assert not torch.equal(one, uncached)
    assert len(source.decoded) == 3 * NUM_IMAGES
    assert not torch.equal(first[0], first[1])
    assert torch.equal(make_store(backbone).features(images_of(source)), uncached)


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


@pytest.fixture
def restored_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def other_weight(backbone: Backbone) -> Backbone:
    other = make_backbone()
    assert weights_of(other) == weights_of(backbone)
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


def key(backbone: Backbone, **changes: Any) -> str:
    arguments = {
        "backbone": backbone,
        "weights_sha256": weights_of(backbone),
        "canvas": CANVAS,
        "normalise": NORMALISE,
        "compute": COMPUTE,
        "view": None,
    }
    return fingerprint(feature_fields(**(arguments | changes)))


@pytest.mark.usefixtures("restored_threads")
def test_everything_that_decides_the_bits_changes_the_key(backbone: Backbone) -> None:
    bf16 = Precision("bf16", "cpu")
    view = View(CROPS, 0, 2)
    larger = make_backbone(image_size=64)
    keys = {
        "as it is": key(backbone),
        "weight": key(other_weight(backbone)),
        "statistic": key(other_statistic(backbone)),
        "image size": key(larger),
        "precision": key(backbone, compute=replace(COMPUTE, infer=bf16)),
        "layout": key(backbone, compute=replace(COMPUTE, layout="channels_last")),
        "batch size": key(backbone, compute=replace(COMPUTE, infer_batch_size=8)),
        "canvas": key(backbone, canvas=replace(CANVAS, size=40)),
        "interpolation": key(backbone, canvas=replace(CANVAS, interpolation="bicubic")),
        "mean": key(backbone, normalise=Normalise((0.5, 0.4, 0.2), NORMALISE.std)),
        "view": key(backbone, view=view),
        "another view": key(backbone, view=replace(view, number=1)),
        "of more views": key(backbone, view=replace(view, num_views=3)),
        "other crops": key(backbone, view=replace(view, augmentation=replace(CROPS, rotation_degrees=11.0))),
    }
    torch.set_num_threads(torch.get_num_threads() + 1)
    keys["threads"] = key(backbone)
    repeated = [name for name in keys if list(keys.values()).count(keys[name]) > 1]
    assert repeated == []


def test_nothing_else_changes_the_key(backbone: Backbone) -> None:
    """The precision of training, where the weights come from, and a second backbone of the same weights."""
    assert key(backbone, compute=replace(COMPUTE, train=Precision("bf16", "cpu"))) == key(backbone)
    again = make_backbone()
    again.weights_id = "file:elsewhere.pth"
    assert key(again.train().requires_grad_(False)) == key(backbone)


def test_lists_and_tuples_of_an_augmentation_are_the_same_view(backbone: Backbone) -> None:
    """Configurations give lists."""
    lists = replace(CROPS, scale=[0.5, 1.0], ratio=[0.9, 1.1])
    assert key(backbone, view=View(lists, 0, 2)) == key(backbone, view=View(CROPS, 0, 2))


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
        source = FileSource(root, paths, np.arange(3, dtype=np.int64))
        return make_store(backbone, notes=notes).features(images_of(source, range(3), split=folder))

    first, second = Notes(), Notes()
    here = stored("here", seconds=1_000_000, notes=first)
    there = stored("there", seconds=2_000_000, notes=second)
    assert torch.equal(here, there)
    assert (first.titles, second.titles) == (["extracting features of 3 here images"], [])
