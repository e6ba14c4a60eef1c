"""What a strategy hands to the engine, which cannot tell one strategy from another."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import nn

from tl_experiments.data.augmentation import Augmentation
from tl_experiments.data.batches import Batches
from tl_experiments.data.mixing import Mixing
from tl_experiments.features.extract import View
from tl_experiments.models.backbone import Backbone
from tl_experiments.models.digest import tensors_sha256
from tl_experiments.models.model import Model
from tl_experiments.models.param_groups import ParamGroup
from tl_experiments.runtime.precision import Precision
from tl_experiments.strategies.materials import Materials, SplitBatches, varies_because


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One stretch of training.

    Attributes:
        name: for records.
        module: the batches' inputs → logits (K, B, C) of K members.
        trained: names, as in the workload's groups, of the parameters that have a gradient; the others stand still.
        held_in_eval: modules inside it that stay in eval mode while it trains.
        epochs: at least 1.
        open: returns the batches that fit the module; called when the phase begins, and what it returns is let go of
            at its end, so that phases do not hold each other's activations. `train` has as many steps in all phases.
        train_precision, infer_precision: what the module computes in.
        lr_scale: times the rates of all groups, throughout.
        continues: the schedule of the phase before goes on; else one of its own begins, over the epochs of this phase
            and of those that continue it.
        solve: takes the place of gradient steps: given the batches of train and the number of the phase's epoch, from
            1, it puts weights in place. A function of these and of the weights that the epoch before has left.
        candidates: what each epoch of a phase that is solved tries, by the names of settings, for records.
    """

    name: str
    module: nn.Module
    trained: frozenset[str]
    held_in_eval: tuple[nn.Module, ...]
    epochs: int
    open: Callable[[], SplitBatches]
    train_precision: Precision
    infer_precision: Precision
    lr_scale: float = 1.0
    continues: bool = False
    solve: Callable[[Batches, int], None] | None = None
    candidates: tuple[Mapping[str, float], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A strategy's plan.

    Attributes:
        phases: in order.
        groups: parameters of all phases from step 0 on.
        deployables: image → logits, one per member; they share storage with the phases' modules.
        trained: names of the deployables' tensors that training may change; the others are frozen.
        finish: makes of a deployable that was trained what is kept and used: adapters are merged into their layers.
            It may change the deployable, which is not trained after that. All processes call it.
        head: how the deployables' heads are made where the strategy decides it, as a group of the configuration would
            say; None where the run's own says it.
    """

    phases: tuple[Phase, ...]
    groups: tuple[ParamGroup, ...]
    deployables: tuple[Model, ...]
    trained: frozenset[str]
    finish: Callable[[Model], Model] = field(default=lambda model: model, repr=False)
    head: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        grouped = {name for group in self.groups for name in group.param_names}
        for phase in self.phases:
            if unknown := sorted(phase.trained - grouped):
                raise ValueError(f"phase {phase.name}: no group holds {', '.join(unknown)}")

    @property
    def num_members(self) -> int:
        return len(self.deployables)

    def trained_tensors(self, member: int) -> dict[str, torch.Tensor]:
        """Return the tensors of one member that training changes, by name; not copies."""
        tensors = self.deployables[member].state_dict()
        return {name: tensor for name, tensor in tensors.items() if name in self.trained}

    def num_trained_params(self, member: int) -> int:
        """Count the parameters of one member that training changes; running statistics are no parameters."""
        parameters = self.deployables[member].named_parameters()
        return sum(parameter.numel() for name, parameter in parameters if name in self.trained)

    def frozen_sha256(self) -> str:
        """Digest the tensors that must not change; members share them."""
        tensors = self.deployables[0].state_dict()
        return tensors_sha256({name: tensor for name, tensor in tensors.items() if name not in self.trained})

    def weights_sha256(self, member: int) -> str:
        """Digest one member's deployable as it is now."""
        return tensors_sha256(self.deployables[member].state_dict())


class Strategy(ABC):
    """How pretrained weights are reused; what most strategies answer is the default.

    Attributes:
        pretrained: whether the backbone begins with its weights, or with random ones.
        trains_backbone: whether the backbone's speed in training matters.
        learns_from_features: whether a head learns from what the frozen backbone says, whose precision counts then.
        takes_steps: whether weights are learnt by gradient steps, for which loss, sampler, mixing and kind of head are.
    """

    pretrained: ClassVar[bool] = True
    trains_backbone: ClassVar[bool] = True
    learns_from_features: ClassVar[bool] = False
    takes_steps: ClassVar[bool] = True

    def trains_bank(self, augmentation: Augmentation) -> bool:  # noqa: ARG002 - for those that override it
        """Whether heads that differ elsewhere can be trained together."""
        return False

    def runs_because(self, augmentation: Augmentation, mixing: Mixing) -> str | None:
        """Why the backbone runs in every epoch; None where a head learns from features that are kept."""
        if not self.learns_from_features:
            return "no head learns from what it says of images as it was pretrained"
        return varies_because(augmentation, mixing)

    def kept_views(self, augmentation: Augmentation) -> Sequence[View | None]:  # noqa: ARG002 - for those that override it
        """Return the views of training images whose features are kept; None is the centre crop."""
        return [None]

    def check(self, sketch: Callable[[], Backbone]) -> None:  # noqa: B027 - most have nothing to ask
        """See that a backbone allows what is wanted of it, before data and weights are touched.

        Args:
            sketch: makes the backbone on the meta device: names and shapes, and no weights.

        Raises:
            SettingError: it does not.
        """

    @abstractmethod
    def prepare(self, materials: Materials) -> Workload:
        """Say what is trained, on what and how; nothing is trained yet.

        Raises:
            DataError: an image cannot be decoded.
            SettingError: the backbone does not allow it.
        """


def changed_tensors(model: Model, phases: Sequence[Phase]) -> frozenset[str]:
    """Return the names of a lone member's tensors that its phases change: parameters, and BatchNorm's statistics."""
    return moving_statistics(model, phases).union(*(phase.trained for phase in phases))


def moving_statistics(model: Model, phases: Sequence[Phase]) -> frozenset[str]:
    """Return the names of BatchNorm's statistics that follow the batches of any phase, without any gradient."""
    layers = [layer for phase in phases for layer in moving_norms(phase)]
    moving = {id(buffer) for layer in layers for buffer in layer.buffers(recurse=False)}
    return frozenset(name for name, buffer in model.named_buffers() if id(buffer) in moving)


def moving_norms(phase: Phase) -> tuple[nn.Module, ...]:
    """Return the BatchNorm layers that a phase has in train mode, whose statistics follow its batches."""
    held = {id(layer) for module in phase.held_in_eval for layer in module.modules()}
    return tuple(layer for layer in batchnorm_modules(phase.module) if id(layer) not in held)


def names(module: nn.Module, *, prefix: str = "") -> frozenset[str]:
    """Return the names of all parameters, as they are in a model that has the module at `prefix`."""
    return frozenset(f"{prefix}{name}" for name, _ in module.named_parameters())


def batchnorm_modules(module: nn.Module) -> tuple[nn.Module, ...]:
    """Return the layers whose running statistics move in train mode."""
    return tuple(child for child in module.modules() if isinstance(child, nn.modules.batchnorm._BatchNorm))
