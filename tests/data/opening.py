"""Opening images of one's own as a configuration would, but for what a test is about."""

from pathlib import Path
from typing import Any

from tl_experiments.data.folder import image_folder
from tl_experiments.data.source import Dataset

OPTIONS: dict[str, Any] = {
    "train_size": None,
    "val_fraction": 0.25,
    "test_fraction": 0.2,
    "split_seed": 0,
    "crop_pct": None,
    "follow_links": False,
    "on_bad_image": "error",
}


def opened(root: Path, **options: Any) -> Dataset:
    """Open a folder; the options are those of `image_folder`."""
    return image_folder(root=str(root), **{**OPTIONS, **options})
