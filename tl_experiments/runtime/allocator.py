"""Freed memory stays with the process: layers ask for the same megabytes again and again."""

import ctypes
import platform

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt
LARGEST = 2**30  # bytes of one piece; a layer's activations of a batch take some 100 MB
LARGEST_OF_OLD_GLIBC = 2**25


def keep_freed_memory() -> bool:
    """Have glibc's malloc keep what is freed, for the rest of the process; returns whether it does so.

    As it comes, it maps each large tensor anew and gives it back at once, so that every page of every activation is
    faulted in once a step (benchmarks/allocator.py). Elsewhere nothing is done.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    kept = mallopt(M_MMAP_THRESHOLD, LARGEST) or mallopt(M_MMAP_THRESHOLD, LARGEST_OF_OLD_GLIBC)
    return bool(kept and mallopt(M_TRIM_THRESHOLD, 2**31 - 1))
