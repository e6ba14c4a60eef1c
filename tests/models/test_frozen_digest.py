"""The digest of frozen tensors sees what `requires_grad=False` does not stop: BatchNorm's running statistics."""

import torch
from torch import nn

from tl_experiments.models.digest import tensors_sha256


def test_a_drift_of_running_statistics_is_caught():
    body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).requires_grad_(False)
    before = tensors_sha256(body.state_dict())
    body.eval()(torch.randn(2, 3, 8, 8))
    assert tensors_sha256(body.state_dict()) == before
    body.train()(torch.randn(2, 3, 8, 8))
    assert tensors_sha256(body.state_dict()) != before
