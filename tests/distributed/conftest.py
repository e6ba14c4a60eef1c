"""A network that no machine of a test could hold."""

from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.testing._internal.distributed.fake_pg import FakeStore

from tl_experiments.models.model import Model
from tl_experiments.models.sharded import shard
from tl_experiments.models.timm_backbone import timm_backbone


@pytest.fixture
def giant() -> Iterator[Model]:
    """ViT-g on the meta device, sharded as one of eight processes would have it."""
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=8)
    try:
        with torch.device("meta"):
            backbone = timm_backbone(
                name="vit_giant_patch14_dinov2", weights=None, image_size=None, preferred_size=None, seed=0
            )
            model = Model(backbone, torch.nn.Linear(backbone.feature_dim, 1000))
        shard(model, mesh=init_device_mesh("cpu", (8,)))
        yield model
    finally:
        dist.destroy_process_group()
