"""What a reader has: images, and a folder to type in."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two classes of photographs of noise, and beside it a table of them that is called alike."""
    root = tmp_path_factory.mktemp("images")
    rows = ["image_path,label"]
    for label, name in enumerate(("cat", "dog")):
        (root / name).mkdir()
        for index in range(40):
            pixels = np.random.default_rng(2 * index + label).integers(0, 256, (24, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{index}.png")
            rows.append(f"{root.name}/{name}/{index}.png,{name}")
    root.with_suffix(".csv").write_text("\n".join(rows))
    return root


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which a reader types one command after the other."""
    return tmp_path_factory.mktemp("desk")
