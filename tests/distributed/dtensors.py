"""The operators on DTensors, and tensor parallelism."""

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.debug import CommDebugMode
from torch.distributed.tensor.parallel import parallelize_module

import leaky_ext

from .common import alone, check, close, mesh, net, slopes, tensor_parallel, train

SHAPE = (8, 8, 12)
ALPHAS = {"one": (1,), "channels": (8,), "broadcast": (8, 1, 12), "same": SHAPE}


def dtensor_case(function, x, g, alpha, placements, alpha_placements, mesh):
    """Forward and backward on DTensors; neither communicates. Returns y, grad_x and grad_alpha, still distributed."""
    dx, dg = (distribute_tensor(t, mesh, placements) for t in (x, g))
    dx.requires_grad_()
    if isinstance(alpha, torch.Tensor):
        alpha = distribute_tensor(alpha, mesh, alpha_placements).requires_grad_()
    with CommDebugMode() as communication:
        y = function(dx, alpha)
        y.backward(dg)
    assert communication.get_total_counts() == 0, communication.get_comm_counts()
    return y, dx.grad, alpha.grad if isinstance(alpha, torch.Tensor) else None


def plain_case(function, x, g, alpha):
    x = x.clone().requires_grad_()
    if isinstance(alpha, torch.Tensor):
        alpha = alpha.clone().requires_grad_()
    y = function(x, alpha)
    y.backward(g)
    return y, x.grad, alpha.grad if isinstance(alpha, torch.Tensor) else None


FUNCTIONS = {
    "learnable": leaky_ext.learnable_leaky_relu,
    "save_output": lambda x, alpha: leaky_ext.learnable_leaky_relu(x, alpha, save="output"),
    "straight_through": leaky_ext.straight_through_relu,
}


@check
def dtensor_rules(folder):
    torch.manual_seed(0)
    x, g = torch.randn(SHAPE), torch.randn(SHAPE)
    for name, function in FUNCTIONS.items():
        for kind, shape in ALPHAS.items():
            alpha = torch.rand(shape) + 0.1
            y, grad_x, grad_alpha = plain_case(function, x, g, alpha)
            for placement in (Replicate(), Shard(0), Shard(1), Shard(2)):
                at = Replicate()
                if isinstance(placement, Shard):
                    if kind == "channels" and placement.dim == 1:
                        at = Shard(0)
                    elif len(shape) == 3 and shape[placement.dim] > 1:
                        at = placement
                results = dtensor_case(function, x, g, alpha, [placement], [at], mesh())
                what = f"{name}, alpha {kind} {at}, x {placement}"
                assert results[0].placements == results[1].placements == (placement,), what
                summed = Partial() if isinstance(placement, Shard) and at == Replicate() else at
                assert results[2].placements == (summed,), what
                for actual, expected in zip(results, (y, grad_x, grad_alpha), strict=True):
                    close(actual.full_tensor(), expected.detach(), 1e-5)


@check
def dtensor_with_a_fixed_slope(folder):
    torch.manual_seed(0)
    x, g = torch.randn(SHAPE), torch.randn(SHAPE)
    for function in FUNCTIONS.values():
        expected = plain_case(function, x, g, 0.3)
        for placement in (Replicate(), Shard(0), Shard(1), Shard(2)):
            y, grad_x, _ = dtensor_case(function, x, g, 0.3, [placement], None, mesh())
            assert y.placements == grad_x.placements == (placement,)
            close(y.full_tensor(), expected[0].detach())
            close(grad_x.full_tensor(), expected[1])


@check
def dtensor_compiled(folder):
    x, g, alpha = (torch.randn(s, generator=torch.Generator().manual_seed(0)) for s in (SHAPE, SHAPE, (8,)))
    for function in (leaky_ext.learnable_leaky_relu, leaky_ext.straight_through_relu):
        plain = plain_case(function, x, g, alpha)
        dx, dg = (distribute_tensor(t, mesh(), [Shard(1)]) for t in (x, g))
        dx.requires_grad_()
        slopes = distribute_tensor(alpha, mesh(), [Shard(0)]).requires_grad_()
        y = torch.compile(function, fullgraph=True, backend="aot_eager")(dx, slopes)
        y.backward(dg)
        for actual, expected in zip((y, dx.grad, slopes.grad), plain, strict=True):
            close(actual.full_tensor(), expected.detach(), 1e-5)


@check
def dtensor_on_a_two_dimensional_mesh(folder):
    grid = init_device_mesh("cpu", (2, dist.get_world_size() // 2))
    x, g, alpha = (torch.randn(s, generator=torch.Generator().manual_seed(0)) for s in (SHAPE, SHAPE, (8,)))
    results = dtensor_case(
        leaky_ext.learnable_leaky_relu, x, g, alpha, [Shard(0), Shard(1)], [Replicate(), Shard(0)], grid
    )
    assert results[0].placements == (Shard(0), Shard(1)) and results[2].placements == (Partial(), Shard(0))
    for actual, expected in zip(results, plain_case(leaky_ext.learnable_leaky_relu, x, g, alpha), strict=True):
        close(actual.full_tensor(), expected.detach(), 1e-5)


@check
def dtensor_does_not_gather_x(folder):
    """Slopes are redistributed to fit x. x and its gradient are not redistributed, even if the gradient is partial."""
    x, g, alpha = (torch.randn(s, generator=torch.Generator().manual_seed(0)) for s in (SHAPE, SHAPE, (8,)))
    plain = plain_case(leaky_ext.learnable_leaky_relu, x, g, alpha)
    results = dtensor_case(leaky_ext.learnable_leaky_relu, x, g, alpha, [Shard(1)], [Replicate()], mesh())
    for actual, expected in zip(results, plain, strict=True):
        close(actual.full_tensor(), expected.detach(), 1e-5)
    dx = distribute_tensor(x, mesh(), [Replicate()]).requires_grad_()
    dalpha = distribute_tensor(alpha, mesh(), [Replicate()]).requires_grad_()
    partial = DTensor.from_local(g / dist.get_world_size(), mesh(), [Partial()])
    with CommDebugMode() as communication:
        leaky_ext.learnable_leaky_relu(dx, dalpha).backward(partial)
    assert communication.get_total_counts() == 0
    close(dx.grad.full_tensor(), plain[1], 1e-5)
    close(dalpha.grad.full_tensor(), plain[2], 1e-5)


@check
def dtensor_in_place_with_a_gradient(folder):
    """In-place calls save a copy of x, because a mask cannot be sharded like x."""
    x, g, alpha = (torch.randn(s, generator=torch.Generator().manual_seed(0)) for s in (SHAPE, SHAPE, (8,)))
    for name in ("learnable_leaky_relu", "straight_through_relu"):
        function, in_place = getattr(leaky_ext, name), getattr(leaky_ext, f"{name}_")
        slope = alpha if name == "learnable_leaky_relu" else 0.1
        plain = plain_case(function, x, g, slope)
        results = dtensor_case(lambda x, a, f=in_place: f(x * 1, a), x, g, slope, [Shard(1)], [Shard(0)], mesh())
        for actual, expected in zip(results, plain, strict=True):
            assert (actual is None) == (expected is None)
            if actual is not None:
                close(actual.full_tensor(), expected.detach(), 1e-5)


@check
def dtensor_without_gradients_and_raw_operators(folder):
    x = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
    dx = distribute_tensor(x, mesh(), [Shard(2)])
    close(torch.ops.leaky_ext.forward(dx, None, 0.1, 1, 0).full_tensor(), leaky_ext.learnable_leaky_relu(x, 0.1))
    alpha = distribute_tensor(torch.full((8,), 0.1), mesh(), [Replicate()])
    close(torch.ops.leaky_ext.forward(dx, alpha, 0.0, 1, 0).full_tensor(), leaky_ext.learnable_leaky_relu(x, 0.1))
    leaky_ext.learnable_leaky_relu_(dx, alpha)
    close(dx.full_tensor(), leaky_ext.learnable_leaky_relu(x, 0.1))
    leaky_ext.straight_through_relu_(dx)
    close(dx.full_tensor(), x.relu())
    grad_x, grad_alpha = torch.ops.leaky_ext.backward(dx, dx, None, alpha, 0.0, 1, 0, None, [False, True])
    assert grad_x is None and grad_alpha.placements == (Partial(),)


@check
def tensor_parallelism(folder):
    single, model = net(), net()
    single[1].channel_dim = model[1].channel_dim = -1
    model[5].inplace = True
    tensor_parallel(model)
    assert model[1].alpha.placements == (Shard(0),) and model[3].alpha.placements == (Replicate(),)
    close(train(model, part=lambda x: x), alone(single))
    close(slopes(model), slopes(single))


@check
def slope_parallel_is_for_slopes(folder):
    from leaky_ext.distributed import SlopeParallel

    with pytest.raises(TypeError, match="Linear"):
        parallelize_module(nn.Sequential(nn.Linear(2, 2)), mesh(), {"0": SlopeParallel()})
