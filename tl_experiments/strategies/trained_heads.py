"""Heads on one frozen backbone as the engine trains them: a bank where their kind allows it, else one alone."""

from dataclasses import dataclass

from torch import nn

from tl_experiments.models.heads import HeadBank
from tl_experiments.models.model import Model
from tl_experiments.models.param_groups import ParamGroup, Part, all_parts, param_groups
from tl_experiments.runtime.seeding import derive_seed
from tl_experiments.strategies.base import names
from tl_experiments.strategies.materials import Materials
from tl_experiments.strategies.on_features import OneHead


@dataclass(frozen=True)
class TrainedHeads:
    """K heads.

    Attributes:
        module: features (K, B, D), or (1, B, D) for all → logits (K, B, C).
        groups: their parameters.
        models: each head behind the backbone, sharing storage with the module.
    """

    module: nn.Module
    groups: tuple[ParamGroup, ...]
    models: tuple[Model, ...]

    @property
    def trained(self) -> frozenset[str]:
        """Names of the parameters, as in the groups."""
        return frozenset(name for group in self.groups for name in group.param_names)

    @property
    def tensors(self) -> frozenset[str]:
        """Names of a model's tensors that training changes."""
        return names(self.models[0].head, prefix="head.")


def new_heads(materials: Materials) -> TrainedHeads:
    """Make a head for each member, drawn under its seed.

    Raises:
        ValueError: there are several members, and heads of this kind are trained alone.
    """
    if not materials.head.joins_bank:
        model = materials.new_model()
        parts = dict.fromkeys(names(model.head, prefix="head."), Part())
        return TrainedHeads(OneHead(model.head), param_groups(model, parts, has_member_axis=False), (model,))
    backbone = materials.backbone.requires_grad_(False)
    bank = HeadBank(
        feature_dim=backbone.feature_dim,
        num_classes=materials.num_classes,
        seeds=[derive_seed(seed, "head") for seed in materials.seeds],
    ).to(materials.compute.device)
    models = tuple(Model(backbone, bank.head(member)) for member in range(bank.num_members))
    return TrainedHeads(bank, param_groups(bank, all_parts(bank, name="head"), has_member_axis=True), models)
