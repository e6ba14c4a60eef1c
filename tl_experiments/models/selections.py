"""Which parameters of a backbone are meant: by patterns on their names, or by what they do in their layer."""

import difflib
import re
from collections.abc import Callable, Collection, Sequence
from fnmatch import fnmatchcase

from torch import nn

from tl_experiments.models.backbone import Backbone
from tl_experiments.runtime.errors import SettingError

NORM = re.compile(r"Norm(?!Free)")  # in names of classes; layers of networks that do without norms have it too


def matching_parameters(backbone: Backbone, patterns: Sequence[str]) -> frozenset[str]:
    """Return the names, in the body, of the parameters that match any pattern.

    Args:
        backbone: of any device.
        patterns: as `fnmatch` takes them: `*` stands for any text, dots included, `?` for one character and `[34]` for
            one of some.

    Raises:
        SettingError: a pattern matches nothing.
    """
    names = [name for name, _ in backbone.body.named_parameters()]
    return frozenset(matching(names, patterns, unmatched=lambda pattern: _unmatched(backbone, pattern, names)))


def matching(names: Sequence[str], patterns: Sequence[str], *, unmatched: Callable[[str], str]) -> list[str]:
    """Return the names that match any pattern, in order.

    Args:
        names: to choose from.
        patterns: as `fnmatch` takes them.
        unmatched: what to say of a pattern that matches nothing.

    Raises:
        SettingError: a pattern matches nothing.
    """
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise SettingError(unmatched(pattern))
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]


def _unmatched(backbone: Backbone, pattern: str, names: Sequence[str]) -> str:
    """Say what is not matched, and what people may have meant: the parts of the body, its stages and near names."""
    said = f"strategy.train: no parameter of {backbone.name} matches {pattern}"
    stem = pattern.removeprefix("backbone.").removeprefix("body.").removesuffix("*").removesuffix(".")
    if any(name.startswith(f"{stem}.") for name in names) and stem:
        return f"{said}; did you mean {stem}.*?"
    near = difflib.get_close_matches(pattern, names, n=3, cutoff=0.5)
    stages = f"; its stages end at {', '.join(backbone.stages)}" if backbone.stages else ""
    return f"{said}{stages}; names are like {' or '.join(near or (names[0], names[-1]))}"


def norm_parameters(body: nn.Module) -> frozenset[str]:
    """Return the names of the scales and shifts of normalisation layers of any kind, told by the name of their class.

    (timm has a dozen kinds of its own that share no base class.)
    """
    return frozenset(
        f"{layer}.{name}" if layer else name
        for layer, module in body.named_modules()
        if NORM.search(type(module).__name__)
        for name, _ in module.named_parameters(recurse=False)
    )


def bias_parameters(body: nn.Module) -> frozenset[str]:
    """Return the names of what layers add to their outputs: those of norms and of attention (`in_proj_bias`) too."""
    return frozenset(name for name, _ in body.named_parameters() if name.endswith("bias"))


def still_modules(module: nn.Module, trained: Collection[int]) -> tuple[nn.Module, ...]:
    """Return the largest parts of a network that have parameters or statistics, and of which nothing is trained.

    Args:
        module: the network.
        trained: `id` of each parameter that is trained.
    """
    parameters = [id(parameter) for parameter in module.parameters()]
    holds_anything = bool(parameters) or any(True for _ in module.buffers())
    if holds_anything and not any(parameter in trained for parameter in parameters):
        return (module,)
    return tuple(still for child in module.children() for still in still_modules(child, trained))
