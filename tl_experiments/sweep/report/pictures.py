"""Test images as pages show them, read from where a run read them."""

import base64
import io
from dataclasses import replace

import numpy as np
from PIL import Image

from tl_experiments import build
from tl_experiments.config.errors import ConfigError
from tl_experiments.config.member import Member
from tl_experiments.runtime.errors import UserError
from tl_experiments.runtime.typed_path import is_url
from tl_experiments.sweep.predictions import Predictions
from tl_experiments.tracking.gallery import as_tile

UNREADABLE = (UserError, ConfigError, OSError, ImportError, ValueError)  # what keeps a page from its pictures


def draw_test_images(member: Member, *, said: Predictions, positions: np.ndarray) -> list[str]:
    """Return `data:` addresses of PNGs; no image is fetched from the net.

    Args:
        member: whose dataset has the images.
        said: of them.
        positions: of the wanted ones, in `said`.

    Raises:
        UserError, ConfigError, OSError, ImportError, ValueError: they are not there any more, or are others.
    """
    data = member.config["dataset"]
    if is_url(data.get("root") or ""):
        raise ValueError("the test images are on the net")
    kept = {key: False for key in ("download",) if key in data}
    config = {**member.config, "dataset": {**data, **kept}, "class_weights": None}  # pictures need none
    dataset = build.build_dataset(replace(member, config=config))
    split = dataset.test
    names = (split.source.name(int(index)) for index in split.indices)
    classes = (dataset.class_names[label] for label in split.labels)
    places = dict(zip(zip(names, classes, strict=True), split.indices.tolist(), strict=True))
    seen = list(zip(said.images, said.classes, strict=True))
    if not places.keys() >= set(seen):  # there may be more: bad images, which the run has left out
        raise ValueError("the test images of the dataset are no longer those that the runs saw")
    return [_data_address(split.source.image(places[seen[index]])) for index in positions]


def _data_address(image: Image.Image) -> str:
    """Return a picture of at most a tile's size, a small one enlarged so that its pixels stay visible."""
    file = io.BytesIO()
    as_tile(image.convert("RGB")).save(file, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
