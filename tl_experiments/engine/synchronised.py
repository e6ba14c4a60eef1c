"""A network whose gradients are added up over all processes, by PyTorch's DistributedDataParallel.

Its own mean over processes would weigh samples by the company they are in, so that a hook adds up instead; losses are
divided by all samples of the step before that. What has no gradient takes no part.
"""

import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import torch
import torch.distributed as dist
from timm.layers import convert_sync_batchnorm
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from tl_experiments.models.sharded import is_sharded
from tl_experiments.runtime.errors import SettingError
from tl_experiments.runtime.ranks import Ranks
from tl_experiments.strategies.base import Workload, moving_norms


def synchronised(network: nn.Module, ranks: Ranks) -> nn.Module:
    """Return the network as it is trained by several processes; of one alone it is itself.

    Args:
        network: the same in all processes; some parameters have a gradient, as they have until another phase begins.
        ranks: of the processes.
    """
    if ranks.is_alone or any(is_sharded(parameter) for parameter in network.parameters()):
        return network  # shares add up their gradients themselves
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of the name of broadcast_buffers; older releases have no other
        together = DistributedDataParallel(
            network,
            broadcast_buffers=False,  # statistics that move are synchronised by their own layers, others stand still
            init_sync=False,  # all begin with the same weights, which is checked by their digests
            # Else buckets are filled anew after the first step, and a run that goes on would add up in another order.
            find_unused_parameters=True,
        )
    together.register_comm_hook(None, _add_up)
    return together


def unsynchronised(network: nn.Module) -> AbstractContextManager[None]:
    """Have gradients wait, inside, for those of later parts of the batch, with which they are added up."""
    if isinstance(network, DistributedDataParallel):
        return network.no_sync()
    return nullcontext()  # shares add up part by part


def synchronise_norms(workload: Workload, *, device: torch.device, ranks: Ranks) -> None:
    """Have BatchNorm layers that follow the batches normalise by what all processes see of a batch, not by a part.

    Raises:
        SettingError: PyTorch has no such layers for the device.
    """
    phases = [] if ranks.is_alone else [phase for phase in workload.phases if phase.solve is None]
    for phase in phases:
        moving = moving_norms(phase)
        in_shares = any(is_sharded(parameter) for layer in moving for parameter in layer.parameters())
        if moving and (device.type != "cuda" or in_shares):
            raise SettingError(
                "BatchNorm in train mode over several processes needs GPUs (torch.nn.SyncBatchNorm) and whole layers; "
                "expected strategy.batchnorm=eval, a backbone without BatchNorm, runtime.fsdp=false on GPUs, or one "
                "process"
            )
        convert_norms(phase.module, moving)


def convert_norms(module: nn.Module, layers: Sequence[nn.Module]) -> None:
    """Put layers that are synchronised in the place of some BatchNorm layers; those that are already stay.

    A layer that is converted twice would lose the activation that timm's layers have.
    """
    wanted = {id(layer) for layer in layers if not isinstance(layer, nn.SyncBatchNorm)}
    for parent in list(module.modules()):
        for name, layer in list(parent.named_children()):
            if id(layer) in wanted:
                setattr(parent, name, convert_sync_batchnorm(layer))


def _add_up(_state: object, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
    work = cast(Any, dist.all_reduce(bucket.buffer(), async_op=True))
    return work.get_future().then(lambda future: future.value()[0])
