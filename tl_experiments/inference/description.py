"""model.json: all that a trained model needs beside its weights, written by one version and read by the next."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tl_experiments.data.decoding import DECODING, RULES
from tl_experiments.data.transforms import ENLARGING, Canvas, Normalise, make_canvas
from tl_experiments.runtime.errors import SettingError

FILE = "model.json"
FORMAT = (
    3  # 2 told neither decoding, versions nor examples; 1 had linear heads alone, no temperature, and did not say so
)
MOST_BYTES = 10_000_000
MOST_PIXELS = 8192  # of a canvas's side
LINEAR = {"_target_": "tl_experiments.models.head_kinds.Linear", "dropout": 0.0}
ADDED: dict[int, Mapping[str, Any]] = {  # format → what the next one says besides, as it was until then
    1: {"head": LINEAR, "tta": "none", "temperature": 1.0},
    2: {"decoding": {"version": 1}, "versions": {}, "examples": []},
}


@dataclass(frozen=True, kw_only=True)
class Description:
    """What is said of a model.

    Attributes:
        backbone: how it is built, as its group of the configuration says, without weights; and its `feature_dim`.
        head: how it is built.
        class_names: C of them, in the order of the logits.
        canvas: how an image is resized and cropped.
        normalise: mean and scale of the network's input.
        mirrors: whether it was calibrated and tested on the mean of the probabilities of an image and its mirror
            image.
        temperature: by which logits are divided, so that the softmax can be believed.
        weights_sha256: digest of the tensors.
        versions: of the libraries that it was trained with.
        examples: names of the files beside it that hold images of the test split.
    """

    backbone: Mapping[str, Any]
    head: Mapping[str, Any]
    class_names: tuple[str, ...]
    canvas: Canvas
    normalise: Normalise
    mirrors: bool
    temperature: float
    weights_sha256: str
    versions: Mapping[str, str]
    examples: tuple[str, ...]

    def save(self, folder: Path) -> None:
        """Write it into a folder that is being made."""
        (folder / FILE).write_text(json.dumps(self.as_json(), indent=2) + "\n", encoding="utf-8")

    def as_json(self) -> dict[str, Any]:
        """Return what the file says."""
        return {
            "format": FORMAT,
            "backbone": dict(self.backbone),
            "head": dict(self.head),
            "class_names": list(self.class_names),
            "decoding": {"version": DECODING, **RULES},
            "input": {
                "color": "RGB",
                "resize_shorter_side": self.canvas.size,
                "centre_crop": self.canvas.crop,
                "interpolation": self.canvas.interpolation,
                "interpolation_enlarging": ENLARGING,
                "scale": "1/255",
                "mean": list(self.normalise.mean),
                "std": list(self.normalise.std),
            },
            "tta": "flip" if self.mirrors else "none",
            "temperature": self.temperature,
            "weights_sha256": self.weights_sha256,
            "versions": dict(self.versions),
            "examples": list(self.examples),
        }

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what is said of the model in a folder, in this format or an earlier one.

        Raises:
            SettingError: there is none, a newer version wrote it, or it is damaged.
        """
        path = folder / FILE
        if not path.is_file():
            raise SettingError(f"{folder}: holds no trained model ({FILE} is missing); expected one of a finished run")
        try:
            if path.stat().st_size > MOST_BYTES:
                raise ValueError(f"more than {MOST_BYTES:,} bytes")
            return cls._read(_upgraded(json.loads(path.read_text(encoding="utf-8"))))
        except (OSError, ValueError, TypeError, KeyError, AttributeError, ArithmeticError, RecursionError) as error:
            reason = f"lacks {error}" if isinstance(error, KeyError) else error
            raise SettingError(f"{path}: cannot be read as the description of a model: {reason}") from error

    @classmethod
    def _read(cls, said: Mapping[str, Any]) -> Self:
        """Raises ValueError, TypeError or KeyError: a value is missing or none that can be."""
        given, (mean, std) = said["input"], (_channels(said["input"], name) for name in ("mean", "std"))
        if min(std) <= 0:
            raise ValueError(f"std {std}")
        return cls(
            backbone=_node(said, "backbone"),
            head=_node(said, "head"),
            class_names=_class_names(said["class_names"]),
            canvas=_canvas(given),
            normalise=Normalise(mean, std),
            mirrors={"flip": True, "none": False}[said["tta"]],
            temperature=_positive(said["temperature"]),
            weights_sha256=str(said["weights_sha256"]),
            versions={str(name): str(number) for name, number in said["versions"].items()},
            examples=_file_names(said["examples"]),
        )


def _upgraded(said: Any) -> dict[str, Any]:
    """Complete what an earlier format says; raises ValueError where a later one is met."""
    number = said["format"]
    if type(number) is not int or number < 1:
        raise ValueError(f"format {number!r}")
    if number > FORMAT or said.get("decoding", {}).get("version", 1) > DECODING:
        raise ValueError(f"a newer version of this program wrote it (format {number}); update this one")
    for earlier in range(number, FORMAT):
        said = {**said, **ADDED[earlier]}
    return said


def _canvas(given: Mapping[str, Any]) -> Canvas:
    size, crop = given["resize_shorter_side"], given["centre_crop"]
    if type(size) is not int or type(crop) is not int or not 1 <= crop <= size <= MOST_PIXELS:
        raise ValueError(f"a centre crop of {crop} of {size} pixels")
    make_canvas(size=crop, crop_pct=1.0, interpolation=given["interpolation"])  # which refuses what it does not know
    return Canvas(size=size, crop=crop, interpolation=given["interpolation"])


def _channels(given: Mapping[str, Any], name: str) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in given[name])
    if not all(map(math.isfinite, (red, green, blue))):
        raise ValueError(f"{name} {given[name]}")
    return red, green, blue


def _node(said: Mapping[str, Any], group: str) -> dict[str, Any]:
    node = said[group]
    if not isinstance(node, dict) or not isinstance(node.get("_target_"), str):
        raise TypeError(f"{group} names nothing to build it with")
    return node


def _class_names(names: Sequence[Any]) -> tuple[str, ...]:
    if not names or not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        raise ValueError("class_names are no different texts")
    return tuple(names)


def _file_names(names: Sequence[Any]) -> tuple[str, ...]:
    if not all(isinstance(name, str) and Path(name).name == name for name in names):
        raise ValueError("examples lead elsewhere")
    return tuple(names)


def _positive(value: Any) -> float:
    if not 0 < float(value) < math.inf:
        raise ValueError(f"temperature {value}")
    return float(value)
