"""A few test images that go with a model: to try it, and to compare what is made of it, where the data set is not."""

import numpy as np

from tl_experiments.data.images import Images
from tl_experiments.runtime.errors import DataError

MOST = 4


def example_canvases(images: Images) -> list[np.ndarray]:
    """Return the canvases, uint8 (3, C, C), of the first image of each of the first classes; none where one is gone."""
    _, first = np.unique(images.labels.numpy(), return_index=True)
    try:
        [canvases] = images.batches([first[:MOST]])
    except DataError:  # the run has been trained and tested all the same
        return []
    return list(canvases.cpu().numpy())


def example_names(count: int) -> tuple[str, ...]:
    """Return the names of their files."""
    return tuple(f"example-{number}.png" for number in range(1, count + 1))
