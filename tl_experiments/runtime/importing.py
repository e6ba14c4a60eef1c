"""Large libraries are imported without a search for garbage."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_has_frozen = False  # known here, since Python would count all that is frozen for a tenth of a second


@contextmanager
def importing() -> Iterator[None]:
    """Rest the collector while libraries are imported, and have it leave alone for good what they have made.

    They make a million objects that stay. Python would search them again each time they are a quarter more, which
    takes an eighth to a fifth of the start of a run.
    """
    global _has_frozen
    was_on, before = gc.isenabled(), len(sys.modules)
    gc.disable()
    try:
        yield
    finally:
        if len(sys.modules) > before:
            if _has_frozen:  # else it is the garbage of imports alone, a hundredth, which takes 0.7 s to find
                gc.collect()
            gc.freeze()
            _has_frozen = True
        if was_on:
            gc.enable()
