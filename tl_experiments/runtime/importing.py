"""Large libraries are imported without a search for garbage."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def importing() -> Iterator[None]:
    """Rest the collector while libraries are imported.

    They make a million objects that stay. Python would search them again each time they are a quarter more, which
    takes a fifth of the start of a run.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@contextmanager
def importing_for_good() -> Iterator[None]:
    """Have the collector leave alone from then on what there is, if anything was imported.

    For the start of a program: of what was garbage by then nothing would ever be freed.
    """
    before = len(sys.modules)
    with importing():
        yield
        if len(sys.modules) > before:
            gc.freeze()
