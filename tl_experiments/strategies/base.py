"""What a strategy gets and what it hands to the engine, which cannot tell one strategy from another."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import nn

from tl_experiments.data.augmentation import Augmentation
from tl_experiments.data.batches import Batches, ImageBatches
from tl_experiments.data.dataset_images import DatasetImages
from tl_experiments.data.images import Images
from tl_experiments.data.mixing import Mixing
from tl_experiments.data.sampling import Sampler
from tl_experiments.data.transforms import Normalise
from tl_experiments.data.watch import Watch
from tl_experiments.models.backbone import Backbone
from tl_experiments.models.digest import tensors_sha256
from tl_experiments.models.head_kinds import HeadKind
from tl_experiments.models.model import Model
from tl_experiments.models.param_groups import ParamGroup
from tl_experiments.runtime.precision import Compute, Precision
from tl_experiments.runtime.seeding import derive_seed


@dataclass(frozen=True, kw_only=True)
class Materials:
    """Everything that a strategy may use.

    Attributes:
        backbone: pretrained, on the device, in the layout of `compute`.
        num_classes: C.
        images: of the splits.
        augmentation: decided for the dataset.
        mixing: of training images.
        sampler: chooses what an epoch of training sees.
        head: what kind of head is put behind the backbone.
        batch_size: samples of a training step.
        epochs: of training.
        seeds: one per member, K of them.
        compute: where and how.
        cache: whether features are kept from run to run.
        memory_bytes: what activations may take on the device.
        watch: told of long work.
        mirrors: whether the best weights see val and test with mirror images at the end.
    """

    backbone: Backbone
    num_classes: int
    images: DatasetImages
    augmentation: Augmentation
    mixing: Mixing
    sampler: Sampler
    head: HeadKind
    batch_size: int
    epochs: int
    seeds: tuple[int, ...]
    compute: Compute
    cache: bool
    memory_bytes: int
    watch: Watch
    mirrors: bool = False

    @property
    def normalise(self) -> Normalise:
        return Normalise(mean=self.backbone.input_spec.mean, std=self.backbone.input_spec.std)

    @property
    def varies_because(self) -> str | None:
        """Why every epoch sees other training images; None where all see the same."""
        if self.mixing.is_on:
            return "images are mixed (mixup_alpha, cutmix_alpha)"
        return "augmentation is random" if self.augmentation.is_random else None

    def new_model(self) -> Model:
        """Put a new head, drawn under the seed of the one member, behind the backbone.

        Raises:
            ValueError: there are several members.
        """
        [seed] = self.seeds
        self.backbone.requires_grad_(False)  # until a phase trains it
        head = self.head.make(
            feature_dim=self.backbone.feature_dim, num_classes=self.num_classes, seed=derive_seed(seed, "head")
        )
        return Model(self.backbone, head.to(self.compute.device))

    def open_images(self) -> "SplitBatches":
        """Return the images themselves, in the order and with the augmentation of the first member's seed.

        Raises:
            DataError: an image cannot be decoded.
        """
        val, test = (self.image_batches(images) for images in (self.images.val, self.images.test))
        return SplitBatches(
            train=self.image_batches(self.images.train, seed=self.seeds[0]),
            val=val,
            test=test,
            mirrored=(lambda: (replace(val, mirrors=True), replace(test, mirrors=True))) if self.mirrors else None,
        )

    def image_batches(self, images: Images, *, seed: int | None = None) -> ImageBatches:
        """Return a split's images in batches: shuffled and augmented under a seed, else in order and as they are.

        Every image is decoded first where all fit into memory.

        Raises:
            DataError: an image cannot be decoded.
        """
        images.decode(device=self.compute.device, work=self.watch.work)
        return ImageBatches(
            images=images,
            size=self.backbone.input_spec.size,
            normalise=self.normalise,
            batch_size=self.compute.infer_batch_size if seed is None else self.batch_size,
            device=self.compute.device,
            seed=seed,
            augmentation=None if seed is None else self.augmentation,
            memory_format=self.compute.memory_format,
            sampler=self.sampler,
            mixing=self.mixing,
        )


@dataclass(frozen=True, kw_only=True)
class SplitBatches:
    """The batches of one phase.

    Attributes:
        train, val, test: of the splits.
        mirrored: returns val and test with mirror images, as the best weights see them at the end; called then. None
            where they see no more than the images.
    """

    train: Batches
    val: Batches
    test: Batches
    mirrored: Callable[[], tuple[Batches, Batches]] | None = None

    def at_the_end(self) -> tuple[Batches, Batches]:
        """Return val and test as the best weights see them.

        Raises:
            DataError: an image cannot be decoded.
        """
        return self.mirrored() if self.mirrored else (self.val, self.test)


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
            It may change the deployable, which is not trained after that.
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


def names(module: nn.Module) -> frozenset[str]:
    """Return the names of all parameters."""
    return frozenset(name for name, _ in module.named_parameters())


def batchnorm_modules(module: nn.Module) -> tuple[nn.Module, ...]:
    """Return the layers whose running statistics move in train mode."""
    return tuple(child for child in module.modules() if isinstance(child, nn.modules.batchnorm._BatchNorm))
