"""Memory that is too small, told from other errors."""

import torch

TEXTS = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
)  # of PyTorch's allocators; Linux's says the second


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that an allocation failed, on a GPU or in main memory."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in TEXTS)
