"""How people name splits, and in which order they expect names."""

import re

SPLIT_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


def natural_key(name: str) -> tuple[list[str | tuple[int, str]], str]:
    """Sort key by which 2 comes before 10."""
    parts = re.split(r"0*([0-9]+)", name.casefold())
    return [(len(part), part) if i % 2 else part for i, part in enumerate(parts)], name
