"""DDP and FSDP2."""

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from leaky_ext import LearnableLeakyReLU

from .common import alone, check, close, equal_on_all_ranks, net, shard, slopes, train


@check
def ddp(folder):
    single, model = net(), DistributedDataParallel(net())
    close(train(model), alone(single))
    for alpha, expected in zip(slopes(model), slopes(single), strict=True):
        equal_on_all_ranks(alpha)
        close(alpha, expected)


@check
def ddp_averages_the_gradient(folder):
    model = DistributedDataParallel(LearnableLeakyReLU(3))
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(dist.get_rank()))
    model(x).sum().backward()
    expected = x.clamp(max=0).sum(0)
    dist.all_reduce(expected)
    close(model.module.alpha.grad, expected / dist.get_world_size())


@check
def fsdp(folder):
    single, model = net(), shard(net())
    assert all(isinstance(parameter, DTensor) for parameter in model.parameters())
    close(train(model), alone(single))
    close(slopes(model), slopes(single))


@check
def fsdp_with_bounds(folder):
    """The stored slopes are projected by the optimizer, as the documentation says."""
    single, model = net(alpha_bounds=(0.09, 0.11)), shard(net(alpha_bounds=(0.09, 0.11)))

    def project(optimizer):
        model[1].project_()

    close(train(model, each_step=project), alone(single))
    single[1].project_()
    (alpha, *_), (expected, *_) = slopes(model), slopes(single)
    close(alpha, expected)
    assert alpha.min() == torch.tensor(0.09) and alpha.max() == torch.tensor(0.11)


@check
def fsdp_mixed_precision_with_an_fp32_alpha(folder):
    one = init_device_mesh("cpu", (dist.get_world_size(), 1), mesh_dim_names=("all", "one"))["one"]
    seen = set()

    def mixed(mesh=None):
        model = net()
        activations = [layer for layer in model if not isinstance(layer, nn.Linear)]
        fully_shard(activations, mesh=mesh, mp_policy=MixedPrecisionPolicy(cast_forward_inputs=False))
        half = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32, output_dtype=torch.float32)
        fully_shard(model, mesh=mesh, mp_policy=half)
        for layer in activations:
            layer.register_forward_hook(lambda m, args, y: seen.add((m.alpha.dtype, args[0].dtype, y.dtype)))
        return model

    model, single = mixed(), mixed(one)
    losses, expected = train(model, steps=5), alone(single, steps=5)
    assert seen == {(torch.float32, torch.bfloat16, torch.bfloat16)}
    assert all(alpha.dtype == torch.float32 for alpha in slopes(model))
    close(losses, expected, 1e-2)
    close(slopes(model), slopes(single), 1e-2)
