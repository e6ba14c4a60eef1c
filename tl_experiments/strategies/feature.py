"""Feature extraction: the backbone is frozen and a new head is trained on its features.

Frozen: nothing of it moves, no gradient, and BatchNorm in eval mode. `requires_grad=False` alone lets the running
statistics drift, and `track_running_stats=False` normalises by the batch (Kornblith et al. 2019 evaluate in eval mode).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from tl_experiments.data.augmentation import Augmentation
from tl_experiments.data.mixing import Mixing
from tl_experiments.features.extract import View
from tl_experiments.strategies.base import Strategy, Workload, moving_statistics
from tl_experiments.strategies.materials import Materials, varies_because
from tl_experiments.strategies.on_features import frozen_phase, open_features
from tl_experiments.strategies.trained_heads import new_heads


@dataclass(frozen=True)
class Feature(Strategy):
    """Train a head on frozen features.

    Attributes:
        batchnorm: eval keeps the backbone in eval mode; train normalises by the batch and lets the statistics drift.
        views: random views of each training image whose features are kept, one of which is drawn in every epoch; None
            draws a new view in every epoch, for which the backbone runs each time. Without augmentation there is one.
    """

    trains_backbone: ClassVar[bool] = False
    learns_from_features: ClassVar[bool] = True

    batchnorm: Literal["eval", "train"]
    views: int | None

    def trains_bank(self, augmentation: Augmentation) -> bool:
        return self.batchnorm == "eval" and (not augmentation.is_random or self.views is not None)

    def prepare(self, materials: Materials) -> Workload:
        """Compute the features once, unless every epoch sees other images or other statistics."""
        heads = new_heads(materials)
        phase = frozen_phase(
            materials,
            heads.module,
            name="feature",
            trained=heads.trained,
            features=lambda: open_features(
                materials, num_members=len(heads.models), views=self.kept_views(materials.augmentation)
            ),
            runs_because=self.runs_because(materials.augmentation, materials.mixing),
        )
        if self.batchnorm == "train":
            phase = replace(phase, held_in_eval=())
        return Workload(
            phases=(phase,),
            groups=heads.groups,
            deployables=heads.models,
            trained=heads.tensors | moving_statistics(heads.models[0], [phase]),
        )

    def runs_because(self, augmentation: Augmentation, mixing: Mixing) -> str | None:
        if self.batchnorm == "train":
            return "strategy.batchnorm=train changes the backbone's statistics"
        reason = varies_because(augmentation, mixing)
        if mixing.is_on:
            return reason
        if self.trains_bank(augmentation):
            return None
        return f"{reason} (strategy.views=4 keeps the features of four views instead)"

    def kept_views(self, augmentation: Augmentation) -> Sequence[View | None]:
        if self.views is None or not augmentation.is_random:
            return [None]
        return [View(augmentation, number, self.views) for number in range(self.views)]
