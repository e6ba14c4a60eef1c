"""Which images are known to decode, kept from run to run by their content."""

from collections.abc import Callable

import torch

from tl_experiments.data.decoding import DECODING, decoders
from tl_experiments.runtime.row_store import RowStore
from tl_experiments.runtime.share import WHOLE, Share


def check_store(*, notice: Callable[[str], None], share: Share = WHOLE) -> RowStore:
    """Make the store of one byte for each image of any dataset: 1 where it decodes, 0 where it does not.

    Args:
        notice: told what a user should know of the store.
        share: of the images, which this process checks.

    Raises:
        SettingError: the limit of the caches is no number.
    """
    fields = {"check": "whether images decode", "decoding": DECODING, "decoders": decoders()}
    return RowStore(kind="checks", fields=fields, row_shape=(), dtype=torch.uint8, notice=notice, share=share)
