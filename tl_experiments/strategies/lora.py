"""LoRA: frozen layers get trained additions of low rank, which are merged into them at the end (Hu et al. 2022).

By the `peft` library, an extra, whose import takes seconds: `pip install -e '.[lora]'`.
"""

import copy
import importlib.util
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from tl_experiments.models.backbone import Backbone
from tl_experiments.models.model import Model
from tl_experiments.models.param_groups import Part, param_groups
from tl_experiments.models.selections import matching
from tl_experiments.runtime.errors import SettingError
from tl_experiments.runtime.seeding import derive_seed, seeded
from tl_experiments.strategies.base import Strategy, Workload, batchnorm_modules, names
from tl_experiments.strategies.materials import Materials
from tl_experiments.strategies.thawing import whole_phase

PREFIX = "lora_"  # of the modules that peft adds
PACKED = "in_proj_weight"  # where nn.MultiheadAttention has its projections, which are no layers
TOLERANCE = 1e-4  # of the largest feature, under additions far larger than trained ones


@dataclass(frozen=True, kw_only=True)
class Lora(Strategy):
    """Train additions of low rank and a new head.

    Attributes:
        rank: of the additions.
        alpha: they are multiplied by alpha / rank.
        dropout: share of an addition's input that a training step leaves out.
        targets: patterns of names, in the backbone's body, of the layers that get one. None are the projections of
            attention, or, where there is none, linear layers and convolutions (not grouped ones, which peft cannot
            merge).
        backbone_lr_scale: the additions' lr is this times the head's.
    """

    rank: int
    alpha: float
    dropout: float
    targets: Sequence[str] | None
    backbone_lr_scale: float

    def check(self, sketch: Callable[[], Backbone]) -> None:
        if importlib.util.find_spec("peft") is None:
            raise SettingError("strategy=lora: peft is not installed; install it by: pip install -e '.[lora]'")
        self._layers(sketch())

    def prepare(self, materials: Materials) -> Workload:
        """Put the additions into the backbone and a new head behind it; one member at a time."""
        model = materials.new_model()
        [seed] = materials.seeds
        layers = self._layers(model.backbone)
        with seeded(derive_seed(seed, "lora")):
            self._inject(model.backbone.body, layers)
        _require_mergeable(model.backbone, materials)
        added = [name for name in names(model.backbone, prefix="backbone.") if PREFIX in name]
        parts = dict.fromkeys(added, Part("lora", lr_scale=self.backbone_lr_scale))
        parts |= dict.fromkeys(names(model.head, prefix="head."), Part("head"))
        phase = whole_phase(materials, model, name="lora", held=batchnorm_modules)
        phase = replace(phase, trained=frozenset(parts))
        return Workload(
            phases=(phase,),
            groups=param_groups(model, parts, has_member_axis=False),
            deployables=(model,),
            trained=frozenset(parts),
            finish=_finish,
        )

    def _layers(self, backbone: Backbone) -> dict[str, nn.Module]:
        """Return the layers that get an addition, by name.

        Raises:
            SettingError: there are none, a pattern matches none, or not all of them can get one.
        """
        modules = dict(backbone.body.named_modules())
        if self.targets is None:
            layers = _projections(modules) or {
                name: module
                for name, module in modules.items()
                if isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1)
            }
        else:
            layers = _matching(modules, self.targets, backbone.name)
        if not layers:
            raise SettingError(f"strategy=lora: {backbone.name} has no layers that an addition fits")
        packed = [name for name, module in layers.items() if isinstance(module, nn.MultiheadAttention)]
        if packed and self.dropout:
            raise SettingError(
                f"strategy.dropout={self.dropout}: {packed[0]} of {backbone.name} has its projections in one tensor, "
                "whose input cannot be reached; expected 0"
            )
        return layers

    def _inject(self, body: nn.Module, layers: dict[str, nn.Module]) -> None:
        import peft  # noqa: PLC0415 - takes seconds

        packed = [name for name, module in layers.items() if isinstance(module, nn.MultiheadAttention)]
        others = [re.escape(name) for name in layers if name not in packed]
        config = peft.LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,  # type: ignore[arg-type]  # it is a factor, and need not be whole
            lora_dropout=self.dropout,
            target_modules="|".join(others) if others else [],
            target_parameters=[f"{name}.{PACKED}" for name in packed] or None,
        )
        peft.inject_adapter_in_model(config, body)


def _projections(modules: dict[str, nn.Module]) -> dict[str, nn.Module]:
    """Return the linear layers of attention, told by the name of its class, and those that are one tensor with it."""
    found: dict[str, nn.Module] = {}
    for name, module in modules.items():
        if isinstance(module, nn.MultiheadAttention):
            found[name] = module
        elif "Attention" in type(module).__name__:
            children = module.named_children()
            found |= {f"{name}.{child}": layer for child, layer in children if isinstance(layer, nn.Linear)}
    return found


def _matching(modules: dict[str, nn.Module], patterns: Sequence[str], backbone: str) -> dict[str, nn.Module]:
    kinds = (nn.Linear, nn.Conv2d, nn.MultiheadAttention)
    fitting = [name for name, module in modules.items() if isinstance(module, kinds)]
    ends = f"{fitting[0]} ... {fitting[-1]}" if fitting else "none"

    def unmatched(pattern: str) -> str:
        what = f"{pattern} matches no linear layer, convolution or attention of {backbone}"
        return f"strategy.targets: {what}; its names are {ends}"

    layers = {name: modules[name] for name in matching(fitting, patterns, unmatched=unmatched)}
    if grouped := [name for name, module in layers.items() if getattr(module, "groups", 1) > 1]:
        raise SettingError(
            f"strategy.targets: {grouped[0]} of {backbone} is a grouped convolution, into which nothing can be merged; "
            "expected patterns that leave it out, or null"
        )
    return layers


@torch.no_grad()
def _require_mergeable(backbone: Backbone, materials: Materials) -> None:
    """Try on a copy whether additions act, and merged layers answer as added ones did; else raise SettingError.

    Layers whose weights are used without calling them, or that change their weights before use, would do neither.
    """
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):  # whose rounding would look like another answer
        _try_merging(backbone, materials)


def _try_merging(backbone: Backbone, materials: Materials) -> None:
    size, device = backbone.input_spec.size, materials.compute.device
    example = torch.linspace(-2, 2, 2 * 3 * size * size, device=device).reshape(2, 3, size, size)
    tried = copy.deepcopy(backbone).eval()
    for addition in (addition for layer in _added(tried) for addition in layer.lora_B.values()):
        addition.weight.fill_(1e-3)
    called: set[nn.Module] = set()
    for layer in _added(tried):
        layer.register_forward_hook(lambda module, *_: called.add(module))
    expected = tried(example)
    if idle := [layer for layer in _added(tried) if layer not in called]:
        raise SettingError(
            f"strategy=lora: {backbone.name} uses {_name(tried, idle[0])} without calling it, so that an addition has "
            "no effect; expected strategy.targets that leave it out"
        )
    answer = _merged(tried)(example)
    if not (answer - expected).abs().max() <= TOLERANCE * expected.abs().max():
        raise SettingError(
            f"strategy=lora: {backbone.name} answers otherwise once additions are merged into its layers"
        )


def _finish(model: Model) -> Model:
    _merged(model.backbone)
    return model


def _added(network: nn.Module) -> Iterable[Any]:
    return [module for module in network.modules() if hasattr(module, "lora_B")]


def _name(network: nn.Module, layer: nn.Module) -> str:
    return next(name for name, module in network.named_modules() if module is layer)


@torch.no_grad()
def _merged(network: nn.Module) -> nn.Module:
    """Add the additions to their layers, and take them out; a network has the tensors then that it had before."""
    for layer in _added(network):
        parent, _, own = _name(network, layer).rpartition(".")
        layer.merge(safe_merge=True)
        setattr(network.get_submodule(parent), own, layer.get_base_layer())
    return network
