"""An image that was decoded for one canvas is not decoded again for it, in whatever split or run it comes back."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tl_experiments import build
from tl_experiments.config.member import Member
from tl_experiments.data.canvas_store import canvas_fields, canvas_store
from tl_experiments.data.images import Images, load_images
from tl_experiments.data.source import Split
from tl_experiments.data.transforms import Canvas
from tl_experiments.tracking.console import Console

CANVAS = Canvas(size=16, crop=14, interpolation="bilinear")
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own for every test."""
    monkeypatch.setenv("TL_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def decoded(split: Split, *, canvas: Canvas = CANVAS, cached: bool = True, titles: list[str] | None = None) -> Images:
    """Load a split as a run does, with a store that is made anew."""

    def work(title: str) -> Callable[[int, int], None]:
        if titles is not None:
            titles.append(title)
        return lambda done, total: None  # noqa: ARG005

    store = canvas_store(canvas, notice=pytest.fail) if cached else None
    images = load_images(split, canvas=canvas, workers=0, memory_bytes=10**9, store=store)
    images.decode(device=CPU, work=work)
    return images


def pixels(images: Images) -> torch.Tensor:
    (canvases,) = images.batches([np.arange(len(images))])
    return canvases


def test_what_was_decoded_once_has_the_same_bytes_without_decoding(watched):
    split, seen = watched(40)
    first = pixels(decoded(split))
    assert seen == list(range(40))
    titles: list[str] = []
    assert torch.equal(pixels(decoded(split, titles=titles)), first)
    assert (len(seen), titles) == (40, [])
    assert torch.equal(pixels(decoded(split, cached=False)), first)


def test_what_is_new_is_decoded_alone(watched):
    split, seen = watched(40)
    decoded(Split("val", split.source, np.array([4, 9, 30])))
    titles: list[str] = []
    images = decoded(split, titles=titles)
    assert seen == [4, 9, 30, *(index for index in range(40) if index not in (4, 9, 30))]
    assert titles == ["decoding 37 train images"]
    assert torch.equal(pixels(images), pixels(decoded(split, cached=False)))


def test_images_that_are_asked_for_singly_are_not_kept(watched, cache: Path):
    split, seen = watched(5)
    store = canvas_store(CANVAS, notice=pytest.fail)
    images = load_images(split, canvas=CANVAS, workers=0, memory_bytes=10**9, store=store)
    list(images.batches([np.array([3])]))
    assert seen == [3]
    assert not cache.exists()


@pytest.mark.parametrize(
    "other", [{"size": 17}, {"crop": 15}, {"interpolation": "bicubic"}], ids=lambda change: next(iter(change))
)
def test_another_canvas_is_drawn_anew(watched, other):
    split, seen = watched(6)
    decoded(split)
    decoded(split, canvas=replace(CANVAS, **other))
    assert seen == [*range(6), *range(6)]


@pytest.mark.parametrize("rules", ["DECODING", "DRAWING"])
def test_other_rules_draw_anew(watched, rules, monkeypatch):
    split, seen = watched(6)
    decoded(split)
    monkeypatch.setattr(f"tl_experiments.data.canvas_store.{rules}", 2)
    decoded(split)
    assert seen == [*range(6), *range(6)]


def test_another_pillow_decodes_anew(monkeypatch):
    before = canvas_fields(CANVAS)
    monkeypatch.setattr("PIL.__version__", "0.1")
    assert canvas_fields(CANVAS) != before


@pytest.mark.parametrize("value", ["true", "false"])
def test_a_run_keeps_images_unless_it_is_told_not_to(make_member: Callable[..., Member], cache: Path, value):
    member = make_member(f"runtime.cache={value}", "dataset.train_size=20", "backbone.weights=null")
    dataset = build.build_dataset(member)
    images = build.build_images(
        member,
        dataset=dataset,
        backbone=build.build_backbone(member, dataset=dataset, strategy=build.build_strategy(member)),
        watch=Console(),
    )
    images.train.decode(device=CPU, work=Console().work)
    assert any(cache.rglob("*.rows")) == (value == "true")
