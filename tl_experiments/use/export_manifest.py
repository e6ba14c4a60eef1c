"""The manifest of an export: what it takes and gives, of which model it is, and how far it is from that."""

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from tl_experiments.inference.export_graph import INPUT
from tl_experiments.runtime.errors import SettingError
from tl_experiments.runtime.fingerprint import versions
from tl_experiments.tracking.run_record import RunRecord
from tl_experiments.use.export_formats import FORMATS, Trained

SAID = ("class_names", "decoding", "tta", "temperature", "weights_sha256")  # of a description
VALUES = {  # of the input of what gives these
    "logits": "RGB; resized, cropped and normalised as `preprocessing` says",
    "probabilities": "RGB as decoded, 0..255",
}
MEANINGS = {
    "logits": (
        "probabilities are their softmax after a division by the temperature; where tta is flip, that of the logarithm "
        "of the mean of two softmaxes, of an image and its mirror image"
    ),
    "probabilities": "calibrated, rows sum to 1",
}


def facts_of(trained: Trained, name: str) -> dict[str, Any]:
    """Return what a manifest says besides what the check found.

    Args:
        trained: what is exported.
        name: of the format.
    """
    graph, said = trained.graph, trained.description.as_json()
    return {
        "format": name,
        "run": _run_name(trained.folder),
        "input": {
            "name": INPUT,
            "dtype": str(graph.example.dtype).removeprefix("torch."),
            "shape": graph.shape,
            "values": VALUES[graph.output],
        },
        "output": {
            "name": graph.output,
            "dtype": "float32",
            "shape": ["batch", len(trained.description.class_names)],
            "meaning": MEANINGS[graph.output],
        },
        "preprocessing": {"in_graph": trained.preprocess, **said["input"]},
        **{key: said[key] for key in SAID},
        "versions": {**versions(), **FORMATS[name].versions()},
    }


def _run_name(folder: Path) -> str | None:
    with suppress(SettingError):
        return RunRecord.load(folder.parent).name
    return None


def as_text(facts: Mapping[str, Any]) -> str:
    return json.dumps(facts, indent=2) + "\n"
