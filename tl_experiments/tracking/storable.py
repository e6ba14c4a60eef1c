"""Texts as every database takes them: one sign that PostgreSQL refuses would hold up all that a run says after it."""

import re
from collections.abc import Mapping

_NOWHERE = re.compile("[\0\ud800-\udfff]")  # surrogates are what Python makes of file names that are no UTF-8
REPLACEMENT = "\ufffd"


def storable(text: str) -> str:
    """Return a text with U+FFFD for each NUL and each half of a surrogate pair.

    >>> storable("a\\0b")
    'a\ufffdb'
    """
    return _NOWHERE.sub(REPLACEMENT, text)


def storable_values(texts: Mapping[str, str]) -> dict[str, str]:
    """Return texts by their keys, each as it can be stored."""
    return {key: storable(text) for key, text in texts.items()}
