"""Memory that is too small is one line that says what needs it and what to change; other errors stay what they are."""

import pytest
import torch

from tl_experiments.runtime.errors import RunFailed
from tl_experiments.runtime.memory import memory_told


def test_the_line_names_what_needs_the_memory_and_what_to_change() -> None:
    with pytest.raises(RunFailed) as caught, memory_told(batch_size=32, image_size=224, backbone="resnet18"):
        torch.empty(2**60, dtype=torch.uint8)
    message = str(caught.value)
    assert "\n" not in message
    for named in ("resnet18", "224 px", "batch_size=32", "runtime.on_oom=halve", "backbone.image_size"):
        assert named in message


def test_other_errors_pass() -> None:
    with pytest.raises(RuntimeError, match="shape"), memory_told(batch_size=1, image_size=1, backbone="x"):
        torch.zeros(2).view(3)
