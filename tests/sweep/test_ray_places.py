"""Jobs that share features follow the first of them, which alone computes them."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tl_experiments.config.member import Member
from tl_experiments.sweep.grouping import feature_key
from tl_experiments.sweep.ray_places import FeaturePlaces

ALIVE = frozenset({"a", "b"})


@pytest.fixture
def places(tmp_path: Path) -> FeaturePlaces:
    """Jobs 0, 2 and 3 share features; the backbone of job 1 is trained."""
    folders = {index: tmp_path / str(index) for index in range(4)}
    for folder in folders.values():
        folder.mkdir()
    return FeaturePlaces(folders, {0: "x", 1: None, 2: "x", 3: "x"})


def run_on(places: FeaturePlaces, index: int, node: str, *, epochs: int) -> None:
    (places.folders[index] / ".ray_node").write_text(node)
    (places.folders[index] / "metrics.jsonl").write_text("{}\n" * epochs)


def test_the_others_wait_until_the_first_has_computed_and_then_prefer_its_node(places: FeaturePlaces) -> None:
    assert [places.accepts(index, alive=ALIVE) for index in range(4)] == [True, True, False, False]
    assert places.node(0) is None
    run_on(places, 0, "b", epochs=0)
    assert not places.accepts(2, alive=ALIVE)
    run_on(places, 0, "b", epochs=1)
    assert places.accepts(2, alive=ALIVE)
    assert (places.node(1), places.node(2)) == (None, "b")


def test_where_the_first_failed_or_its_node_died_another_takes_its_place(places: FeaturePlaces) -> None:
    assert places.accepts(0, alive=ALIVE)
    places.ended(0)  # without features
    assert [places.accepts(index, alive=ALIVE) for index in (2, 3)] == [True, False]
    run_on(places, 2, "b", epochs=1)
    places.ended(2)
    assert places.accepts(3, alive=frozenset({"a"}))
    assert places.first["x"] == 3, "it computes the features anew"


@pytest.mark.parametrize("other", [["lr=0.5"], ["seed=1"], ["optimizer=sgd"], ["epochs=9"], ["head=mlp"]])
def test_features_are_known_by_what_decides_on_them(other: list[str], make_member: Callable[..., Member]) -> None:
    assert feature_key(make_member()) == feature_key(make_member(*other)) is not None


@pytest.mark.parametrize("other", [["backbone=resnet18"], ["dataset.train_size=100"], ["backbone.image_size=32"]])
def test_other_images_or_backbones_have_other_features(other: list[str], make_member: Callable[..., Member]) -> None:
    assert feature_key(make_member()) != feature_key(make_member(*other))


@pytest.mark.parametrize(
    "typed",
    [["strategy=finetune"], ["runtime.cache=false"], ["augmentation=standard"], ["mixup_alpha=0.2"]],
    ids=lambda typed: typed[0],
)
def test_no_job_waits_for_features_that_are_not_kept(typed: list[str], make_member: Callable[..., Member]) -> None:
    assert feature_key(make_member(*typed)) is None


def test_views_of_random_images_are_kept(make_member: Callable[..., Member]) -> None:
    assert feature_key(make_member("augmentation=standard", "strategy.views=2")) is not None
