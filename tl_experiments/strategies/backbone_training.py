"""What all strategies that train a pretrained backbone have in common: its rates, its pull and its BatchNorm."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Literal

from torch import nn

from tl_experiments.models.backbone import Backbone
from tl_experiments.models.model import Model
from tl_experiments.models.param_groups import Part, param_groups
from tl_experiments.models.stages import stage_numbers
from tl_experiments.runtime.errors import SettingError
from tl_experiments.strategies.base import Phase, Strategy, Workload, batchnorm_modules, changed_tensors


@dataclass(frozen=True, kw_only=True)
class BackboneTraining(Strategy):
    """How a backbone is trained.

    Attributes:
        batchnorm: of what is trained: train lets the statistics follow the new data; eval keeps them as pretrained.
        backbone_lr_scale: the backbone's lr is this times the head's.
        layer_decay: times that again for each stage below the last, the last one included (Clark et al. 2020, ELECTRA;
            Bao et al. 2022, BEiT). 1 is the same rate for all.
        l2_sp: strength of the pull of the backbone's weights towards the pretrained ones, which takes the place of
            their weight decay (Li et al. 2018). 0 is none.
    """

    batchnorm: Literal["eval", "train"]
    backbone_lr_scale: float
    layer_decay: float
    l2_sp: float

    def parts(self, model: Model, trained: Collection[str]) -> dict[str, Part]:
        """Say how each parameter that is trained in any phase is trained.

        Args:
            model: the whole.
            trained: names of its parameters; those of the head are named `head.*`.

        Raises:
            SettingError: the backbone has no stages to tell its depth by.
        """
        self._require_depth(model.backbone)
        stages, last = stage_numbers(model.backbone), len(model.backbone.stages)
        parts = {}
        for name in trained:
            if name.startswith("head."):
                parts[name] = Part("head")
            else:
                stage = stages[name.removeprefix("backbone.")]
                depth = f".stage{stage + 1}" if stage < last else ".top"  # what follows the last stage
                which = "backbone" if self.layer_decay == 1 else f"backbone{depth}"
                scale = self.backbone_lr_scale * self.layer_decay ** (last - stage)
                parts[name] = Part(which, lr_scale=scale, l2_sp=self.l2_sp)
        return parts

    def check(self, sketch: Callable[[], Backbone]) -> None:
        if self.layer_decay != 1:
            self._require_depth(sketch())

    def _require_depth(self, backbone: Backbone) -> None:
        if self.layer_decay != 1 and not backbone.stages:
            raise SettingError(
                f"strategy.layer_decay={self.layer_decay}: {backbone.name} does not say what its stages are; expected 1"
            )

    def held(self, module: nn.Module) -> tuple[nn.Module, ...]:
        """Return the BatchNorm layers of what is trained that stay in eval mode."""
        return batchnorm_modules(module) if self.batchnorm == "eval" else ()

    def workload(self, model: Model, *phases: Phase) -> Workload:
        """Plan the phases of one member, whose parameters are grouped for all of them."""
        trained = frozenset[str]().union(*(phase.trained for phase in phases))
        return Workload(
            phases=phases,
            groups=param_groups(model, self.parts(model, trained), has_member_axis=False),
            deployables=(model,),
            trained=changed_tensors(model, phases),
        )
