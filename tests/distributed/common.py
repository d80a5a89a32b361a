"""The registry of checks, and what they share: a net, its training, and comparisons."""

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

from leaky_ext import LearnableLeakyReLU, StraightThroughReLU

STEPS = 20
CHECKS = {}


def check(function):
    CHECKS[function.__name__] = function
    return function


def net(seed=0, **bounds):
    torch.manual_seed(seed)
    return nn.Sequential(
        *(nn.Linear(8, 16), LearnableLeakyReLU(16, init=0.1, **bounds), nn.Linear(16, 16)),
        *(StraightThroughReLU(0.1, learnable=True), nn.Linear(16, 16), LearnableLeakyReLU(init=0.2, save="output")),
        nn.Linear(16, 2),
    )


def batch(step):
    generator = torch.Generator().manual_seed(step)
    return torch.randn(16, 8, generator=generator), torch.randn(16, 2, generator=generator)


def mine(x):
    """Returns this rank's part of a batch."""
    return x.chunk(dist.get_world_size())[dist.get_rank()]


def train(model, part=mine, steps=STEPS, each_step=lambda optimizer: None):
    """Returns the losses of a few steps of SGD, averaged over ranks."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    losses = []
    for step in range(steps):
        x, target = (part(t) for t in batch(step))
        loss = (model(x) - target).square().mean()
        loss.backward()
        optimizer.step()
        each_step(optimizer)
        optimizer.zero_grad()
        loss = loss.detach()
        dist.all_reduce(loss)
        losses.append(loss.item() / dist.get_world_size())
    return losses


def alone(model, **kwargs):
    """Runs the same training on the whole batch, separately on each rank."""
    return train(model, part=lambda x: x, **kwargs)


def whole(x):
    return x.full_tensor() if isinstance(x, DTensor) else x


def slopes(model):
    return [whole(p.detach()) for name, p in model.named_parameters() if name.endswith("alpha")]


def close(actual, expected, tolerance=1e-6):
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


def equal_on_all_ranks(tensor):
    gathered = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
    dist.all_gather(gathered, tensor)
    assert all(torch.equal(other, tensor) for other in gathered)


def mesh():
    return init_device_mesh("cpu", (dist.get_world_size(),))


def shard(model):
    for layer in model[:3]:
        fully_shard(layer)
    fully_shard(model)
    return model


def tensor_parallel(model):
    """Alternates columns and rows. The second activation gets a DTensor, the third the whole x."""
    from leaky_ext.distributed import SlopeParallel  # here, for the functions register the rules by themselves

    plan = {"0": ColwiseParallel(), "1": SlopeParallel(), "2": RowwiseParallel(output_layouts=Shard(-1))}
    plan |= {"3": SlopeParallel(), "4": ColwiseParallel(input_layouts=Shard(-1), use_local_output=False)}
    plan |= {"5": SlopeParallel(use_local_output=False), "6": RowwiseParallel()}
    return parallelize_module(model, mesh(), plan)
