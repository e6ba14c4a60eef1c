"""A model of which each of several processes holds a share, by PyTorch's FSDP2 (Zhao et al. 2023, `fully_shard`).

Layers are put together when they compute, stage by stage; gradients and what optimizers remember stay in shares. So a
network can be trained whose weights, gradients and moments would not fit into the memory of one device.
"""

import copy
from collections.abc import Mapping

import torch
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from tl_experiments.models.model import Model


def shard(model: Model, *, mesh: DeviceMesh) -> None:
    """Have each process of the mesh hold its share of every parameter; the model is the same in all before that.

    Args:
        model: on the CPU, or on the meta device; its stages go to the mesh's device one by one.
        mesh: of all processes, on one axis.
    """
    stages = [model.backbone.body.get_submodule(name) for name in model.backbone.stages]
    for module in (*stages, model):
        fully_shard(module, mesh=mesh)
        # Losses are divided by all samples of the step before, and gloo knows of plain sums alone.
        module.set_gradient_divide_factor(1.0)  # type: ignore[attr-defined]
        module.set_force_sum_reduction_for_comms(True)  # type: ignore[attr-defined]


def is_sharded(tensor: torch.Tensor) -> bool:
    """Whether this process holds a share of the tensor only."""
    return isinstance(tensor, DTensor)


def own_part(tensor: torch.Tensor) -> torch.Tensor:
    """Return what this process holds of a tensor: all of it where it is not sharded."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """Put a tensor together; all processes ask for it. One that is not sharded is returned as it is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def whole_tensors(tensors: Mapping[str, torch.Tensor], *, kept: bool) -> dict[str, torch.Tensor]:
    """Put sharded tensors together, one after the other, on the CPU; all processes ask for them in the same order.

    Args:
        tensors: by name; those that are not sharded are returned as they are.
        kept: whether this process wants them; it takes part all the same.
    """
    put_together = {}
    for name, tensor in tensors.items():
        value = whole(tensor).cpu() if is_sharded(tensor) else tensor
        if kept or not is_sharded(tensor):
            put_together[name] = value
    return put_together


def put(tensor: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Overwrite a tensor, or this process's share of it, with a whole value, and return it."""
    if isinstance(tensor, DTensor):
        value = distribute_tensor(value.to(tensor.device), tensor.device_mesh, tensor.placements)
    return tensor.copy_(value)


def empty_copy(model: Model) -> Model:
    """Return the model without weights, on the meta device."""
    return copy.deepcopy(model).to("meta")


def gathered(model: Model, skeleton: Model) -> Model:
    """Return a sharded model put together on the CPU; all processes ask for it.

    Args:
        model: sharded.
        skeleton: of it, as `empty_copy` made it before.
    """
    state = {name: whole(tensor).detach().cpu() for name, tensor in model.state_dict().items()}
    skeleton.load_state_dict(state, assign=True)
    skeleton.train(model.training)
    return skeleton
