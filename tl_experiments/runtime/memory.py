"""Memory that is too small, told from other errors."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from tl_experiments.runtime.errors import RunFailed

# Of PyTorch's allocators, and of cuBLAS and cuDNN.
TEXTS = ("out of memory", "can't allocate memory", "not enough memory", "ALLOC_FAILED")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that an allocation failed, on a GPU or in main memory."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in TEXTS)


@contextmanager
def memory_told(*, batch_size: int, image_size: int, backbone: str) -> Iterator[None]:
    """Turn an allocation that fails inside the block into one line that names what memory is needed for.

    Raises:
        RunFailed: memory was too small.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise RunFailed(
            f"memory is too small for {backbone} at {image_size} px with batch_size={batch_size}; try a smaller "
            "batch_size, or runtime.on_oom=halve, which keeps the effective one; a smaller backbone.image_size; or, in "
            "evaluation and feature extraction, a smaller runtime.infer_batch_size"
        ) from error
