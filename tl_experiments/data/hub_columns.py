"""Which column of a Hugging Face split holds its images and which its classes; types are known by their names."""

from collections.abc import Callable, Mapping
from typing import Any

from tl_experiments.data.image_files import printable
from tl_experiments.runtime.errors import SettingError


def find_image_column(rows: Any, *, wanted: str | None) -> str:
    """Return the column of a split that holds images.

    Args:
        rows: a `datasets.Dataset`.
        wanted: a user's choice, of images or of the bytes of image files; None takes the only one of type Image.

    Raises:
        SettingError: there is no such column, or not one alone.
    """
    fits = _is_image if wanted is None else _may_be_image
    return _column(rows, fits, key="dataset.image_column", kind="Image", wanted=wanted)


def find_label_column(rows: Any, *, wanted: str | None) -> str:
    """Return the column of a split that holds labels.

    Args:
        rows: a `datasets.Dataset`.
        wanted: a user's choice, of classes, text or whole numbers; None takes the only one of type ClassLabel.

    Raises:
        SettingError: there is no such column, or not one alone.
    """
    fits = _is_class if wanted is None else _may_be_class
    return _column(rows, fits, key="dataset.label_column", kind="ClassLabel", wanted=wanted)


def _column(rows: Any, fits: Callable[[Any], bool], *, key: str, kind: str, wanted: str | None) -> str:
    found = [name for name, feature in rows.features.items() if fits(feature) and wanted in (None, name)]
    if len(found) == 1:
        return found[0]
    there = ", ".join(f"{printable(name)}: {_kind(feature)}" for name, feature in rows.features.items())
    if wanted is not None:
        raise SettingError(f"{key}={wanted}: no column of that name can be of type {kind} (there is {there})")
    many = "several columns are" if found else "no column is"
    raise SettingError(f"{key}=null: {many} of type {kind} (there is {there}); expected {key}=NAME")


def _kind(feature: Any) -> str:
    return printable(_dtype(feature) or type(feature).__name__)


def _dtype(feature: Any) -> str:
    """What a plain column holds; nothing of others."""
    return str(feature.dtype) if type(feature).__name__ == "Value" else ""


def _is_image(feature: Any) -> bool:
    return type(feature).__name__ == "Image"


def _may_be_image(feature: Any) -> bool:
    holds_bytes = isinstance(feature, Mapping) and {*feature} == {"bytes", "path"}
    return _is_image(feature) or holds_bytes or _dtype(feature).endswith("binary")


def _is_class(feature: Any) -> bool:
    return type(feature).__name__ == "ClassLabel"


def _may_be_class(feature: Any) -> bool:
    return _is_class(feature) or _dtype(feature).startswith(("string", "large_string", "int", "uint", "bool"))


def label_texts(rows: Any, column: str) -> list[str | None]:
    """Return the name of each row's class; None where it has none."""
    feature = rows.features[column]
    values = list(rows.with_format(None).select_columns([column])[:][column])
    if _is_class(feature):
        known = range(len(feature.names))
        return [feature.names[value] if value in known else None for value in values]
    return [None if value is None else str(value).strip() or None for value in values]


def class_order(rows: Any, column: str) -> list[str] | None:
    """Return the names of the classes as a split numbers them; None where it does not."""
    feature = rows.features[column]
    return list(feature.names) if _is_class(feature) else None
