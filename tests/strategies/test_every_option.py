"""Whatever the strategy: what it calls frozen is the same by hash afterwards, and what it calls trained has moved."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tl_experiments import build
from tl_experiments.config.member import Member
from tl_experiments.data.augmentation import Augmentation
from tl_experiments.strategies.base import Workload
from tl_experiments.strategies.materials import Materials

CONF = Path(__file__).parents[2] / "conf" / "strategy"
OPTIONS = sorted(path.stem for path in CONF.glob("*.yaml"))
TURNED = Augmentation(hflip_prob=0.0, rotation_degrees=15.0, scale=(0.7, 1.0), ratio=(0.9, 1.1), erase_prob=0.0)
FREEZE = {"feature", "partial", "norm_only", "bias_only", "lora", "knn", "logistic"}  # throughout; others thaw all


@pytest.mark.parametrize("augmentation", [None, TURNED], ids=["kept", "every epoch"])
@pytest.mark.parametrize("option", OPTIONS)
def test_frozen_tensors_are_equal_by_hash_and_trained_ones_have_moved(
    option: str,
    augmentation: Augmentation | None,
    make_member: Callable[..., Member],
    materialise: Callable[..., Materials],
    train: Callable[..., None],
    moved: Callable[[Workload, Callable[[], object]], set[str]],
) -> None:
    changes = {} if augmentation is None else {"augmentation": augmentation}
    strategy = build.build_strategy(make_member(f"strategy={option}"))
    workload = strategy.prepare(materialise(epochs=3, **changes))
    frozen = workload.frozen_sha256()
    changed = moved(workload, lambda: train(workload))
    assert workload.frozen_sha256() == frozen
    assert changed == workload.trained
    if option in FREEZE:
        assert changed < set(workload.deployables[0].state_dict())
