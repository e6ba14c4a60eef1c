"""Handwritten digits as image files, and a stored model that knows them."""

from pathlib import Path

from PIL import Image
from sklearn.datasets import load_digits

MODEL = Path(__file__).parent / "use" / "run_of_format_2" / "model"
RUN = MODEL.parent


def write_digits(root: Path, count: int) -> dict[str, str]:
    """Write the first digits into root/CLASS/*.png; returns path below the root → class."""
    digits, written = load_digits(), {}
    for index in range(count):
        label = str(digits.target[index])
        path = root / label / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((digits.images[index] * 15).astype("uint8")).save(path)
        written[f"{label}/{index}.png"] = label
    return written
