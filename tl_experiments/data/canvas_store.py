"""Decoded images that stay from run to run, under everything that decides their bytes."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch

from tl_experiments.data.decoding import DECODING, decoders
from tl_experiments.data.transforms import DRAWING, Canvas
from tl_experiments.runtime.row_store import RowStore
from tl_experiments.runtime.share import WHOLE, Share


def canvas_store(canvas: Canvas, *, notice: Callable[[str], None], share: Share = WHOLE) -> RowStore:
    """Make the store of one kind of canvas, for images of any dataset.

    Args:
        canvas: what is drawn of each image.
        notice: told what a user should know of the store.
        share: of the images, which this process draws.

    Raises:
        SettingError: the limit of the caches is no number.
    """
    return RowStore(
        kind="images",
        fields=canvas_fields(canvas),
        row_shape=(3, canvas.size, canvas.size),
        dtype=torch.uint8,
        notice=notice,
        share=share,
    )


def canvas_fields(canvas: Canvas) -> dict[str, Any]:
    """What decides the bytes of a canvas besides the image's content, as plain values."""
    return {"canvas": asdict(canvas), "decoding": DECODING, "drawing": DRAWING, "decoders": decoders()}
