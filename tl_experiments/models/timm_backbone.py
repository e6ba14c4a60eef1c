"""Any model of timm as a backbone."""

import difflib
import logging
from pathlib import Path
from typing import Any

import huggingface_hub
import timm
import torch
from timm.data import resolve_data_config
from torch import nn

from tl_experiments.models.backbone import DEFAULT_WEIGHTS, SMALLEST, Backbone, choose_image_size
from tl_experiments.models.input_spec import InputSpec
from tl_experiments.models.weights import OFFLINE, first_line, load_weights, read_weights
from tl_experiments.runtime.errors import SettingError, WeightsError
from tl_experiments.runtime.seeding import seeded


def timm_backbone(
    *, name: str, weights: str | None, image_size: int | None, preferred_size: int | None, seed: int
) -> Backbone:
    """Build a backbone: a timm model without its classifier, pooled.

    Args:
        name: as `timm.list_models()` has it, with or without a tag of its weights.
        weights: default (downloaded once into the Hugging Face cache), None (random) or the path of a file.
        image_size: that the user wants, or None.
        preferred_size: that the dataset wants, or None.
        seed: of random weights.

    Raises:
        SettingError: timm knows no such model, or a size that the model does not take.
        WeightsError: the weights cannot be downloaded or read, or do not fit.
    """
    body = make_timm_body(name, seed=seed)
    config: dict[str, Any] = dict(body.pretrained_cfg)
    spec = make_input_spec(body, name=name, image_size=image_size, preferred_size=preferred_size)
    if weights is None:
        weights_id = f"random(seed={seed})"
    elif weights == DEFAULT_WEIGHTS:
        body = _pretrained(name, config)
        weights_id = f"timm/{config['architecture']}.{config['tag']}"
    else:
        tensors = read_weights(Path(weights).expanduser())
        load_weights(body, tensors, heads=_classifiers(config), source=weights)
        weights_id = f"file:{Path(weights).name}"
    return Backbone(
        body,
        name=name,
        feature_dim=int(body.head_hidden_size),
        input_spec=spec,
        weights_id=weights_id,
        stages=stages_of(body),
    )


def stages_of(body: Any) -> tuple[str, ...]:
    """Return the layers that end a stage, where the model tells them; those that it takes features from.

    Some models (HRNet, Twins) name places that are no layers: these tell nothing.
    """
    told = tuple(info["module"] for info in getattr(body, "feature_info", []))
    layers = {name for name, _ in body.named_modules()}
    return told if layers.issuperset(told) else ()


def make_timm_body(name: str, *, seed: int) -> Any:
    """Build a model without classifier and with random weights.

    Raises:
        SettingError: timm knows no such model; the nearest names are listed.
    """
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3)
        raise SettingError(
            f"backbone.name={name}: timm {timm.__version__} has no such model; expected "
            + (f"{' or '.join(near)}" if near else "a name that timm.list_models() shows")
        )
    try:
        with seeded(seed):
            return timm.create_model(name, pretrained=False, num_classes=0)
    except RuntimeError as error:  # the tag after the dot
        raise SettingError(
            f"backbone.name={name}: {first_line(error)}; timm.list_pretrained() shows the tags"
        ) from error


def make_input_spec(body: nn.Module, *, name: str, image_size: int | None, preferred_size: int | None) -> InputSpec:
    """Read what the model's weights were evaluated with; raises SettingError for a size that it does not take."""
    config: dict[str, Any] = dict(body.pretrained_cfg)  # type: ignore[arg-type]
    data = resolve_data_config({}, model=body)
    size = choose_image_size(
        name=name,
        own=data["input_size"][-1],
        wanted=image_size,
        preferred=preferred_size,
        smallest=max((config.get("min_input_size") or (3, SMALLEST, SMALLEST))[-1], SMALLEST),
        fixed=bool(config.get("fixed_input_size")),
    )
    return InputSpec(
        size=size,
        mean=tuple(data["mean"]),
        std=tuple(data["std"]),
        interpolation=data["interpolation"] if data["interpolation"] == "bilinear" else "bicubic",
        crop_pct=data["crop_pct"],
    )


def _classifiers(config: dict[str, Any]) -> tuple[str, ...]:
    names = config.get("classifier") or ()
    return (names,) if isinstance(names, str) else tuple(names)


def _pretrained(name: str, config: dict[str, Any]) -> Any:
    """Build the model with its weights from the Hugging Face cache, or download them into it."""
    if not config.get("hf_hub_id") and not config.get("url"):
        raise WeightsError(
            f"backbone.weights=default: timm has no weights for {name}; use backbone.weights=null or a path"
        )
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it tells of every retry, twice
    try:
        with seeded(0):
            return timm.create_model(name, pretrained=True, num_classes=0)
    except Exception as error:  # the hub, requests and safetensors each raise their own
        hub = config.get("hf_hub_id")
        url = f"https://huggingface.co/{hub}/resolve/main/model.safetensors" if hub else config["url"]
        cache = huggingface_hub.constants.HF_HUB_CACHE if hub else torch.hub.get_dir()
        raise WeightsError(
            f"backbone.weights=default: could not get {url} ({first_line(error)}); its cache is {cache}; "
            f"download the file by other means and use backbone.weights=PATH; {OFFLINE}"
        ) from error
