"""DDP, FSDP2, DTensor and torch.distributed.checkpoint, on 2 and on 4 gloo processes.

Every check is a function that runs on all ranks and compares with the same thing done by one process. All checks of a
world run in one set of processes; each has a test of its own.
"""

import copy
import datetime
import subprocess
import sys
import traceback

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
import torch.multiprocessing as mp
from torch import nn
from torch.distributed.checkpoint.state_dict import get_model_state_dict, get_state_dict, set_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.debug import CommDebugMode
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.nn.parallel import DistributedDataParallel

import leaky_ext
from leaky_ext import AlphaMonitor, LearnableLeakyReLU, StraightThroughReLU

STEPS = 20
CHECKS = {}


def check(function):
    CHECKS[function.__name__] = function
    return function


# Models and training


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
    """This rank's part of a batch."""
    return x.chunk(dist.get_world_size())[dist.get_rank()]


def train(model, part=mine, steps=STEPS, each_step=lambda optimizer: None):
    """Losses, averaged over ranks, of a few steps of SGD."""
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
    """The same training on the whole batch, which every rank does for itself."""
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


# Data parallelism


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


# DTensor

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
    """Slopes that lie otherwise than x asks are moved; x and its gradient never are, even if a sum is still due."""
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
def dtensor_in_place_with_a_gradient_is_refused(folder):
    x = distribute_tensor(torch.randn(SHAPE), mesh(), [Shard(0)]).requires_grad_()
    for function in (leaky_ext.learnable_leaky_relu_, leaky_ext.straight_through_relu_):
        with pytest.raises(RuntimeError, match="use the function without _"):
            function(x * 1, 0.1)


@check
def dtensor_without_gradients_and_raw_operators(folder):
    x = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
    dx = distribute_tensor(x, mesh(), [Shard(2)])
    close(torch.ops.leaky_ext.learnable_leaky_relu(dx, 0.1).full_tensor(), leaky_ext.learnable_leaky_relu(x, 0.1))
    alpha = distribute_tensor(torch.full((8,), 0.1), mesh(), [Replicate()])
    close(torch.ops.leaky_ext.learnable_leaky_relu(dx, alpha, 1).full_tensor(), leaky_ext.learnable_leaky_relu(x, 0.1))
    leaky_ext.learnable_leaky_relu_(dx, alpha)
    close(dx.full_tensor(), leaky_ext.learnable_leaky_relu(x, 0.1))
    leaky_ext.straight_through_relu_(dx)
    close(dx.full_tensor(), x.relu())
    grad_x, grad_alpha = torch.ops.leaky_ext.backward(dx, dx, alpha, 1, [False, True])
    assert grad_x is None and grad_alpha.placements == (Partial(),)


def tensor_parallel(model):
    """Columns and rows by turns; the second activation sees a DTensor, the third the whole of x."""
    from leaky_ext.distributed import SlopeParallel  # here, for the functions register the rules by themselves

    plan = {"0": ColwiseParallel(), "1": SlopeParallel(), "2": RowwiseParallel(output_layouts=Shard(-1))}
    plan |= {"3": SlopeParallel(), "4": ColwiseParallel(input_layouts=Shard(-1), use_local_output=False)}
    plan |= {"5": SlopeParallel(use_local_output=False), "6": RowwiseParallel()}
    return parallelize_module(model, mesh(), plan)


@check
def tensor_parallelism(folder):
    single, model = net(), net()
    single[1].channel_dim = model[1].channel_dim = -1
    model[5].inplace = True  # which DTensors do not take
    tensor_parallel(model)
    assert model[1].alpha.placements == (Shard(0),) and model[3].alpha.placements == (Replicate(),)
    close(train(model, part=lambda x: x), alone(single))
    close(slopes(model), slopes(single))


@check
def slope_parallel_is_for_slopes(folder):
    from leaky_ext.distributed import SlopeParallel

    with pytest.raises(TypeError, match="Linear"):
        parallelize_module(nn.Sequential(nn.Linear(2, 2)), mesh(), {"0": SlopeParallel()})


# Around them


@check
def monitor(folder):
    single = net()
    expected = AlphaMonitor(single)
    alone(single, steps=3, each_step=lambda _: expected.step())
    for model, part in ((shard(net()), mine), (tensor_parallel(net()), lambda x: x)):
        watched = AlphaMonitor(model)
        train(model, part, steps=3, each_step=lambda _, watched=watched: watched.step())
        for a, b in zip(watched.rows(), expected.rows(), strict=True):
            for column in ("alpha_min", "alpha_mean", "alpha_max", "grad_norm"):
                close(a[column], b[column])


@check
def checkpoint(folder):
    """Saved by N processes; loaded by N into another model, and by one."""
    for name, build in {"fsdp": shard, "tp": tensor_parallel}.items():
        part = mine if name == "fsdp" else lambda x: x
        model = build(net())
        optimizer = torch.optim.Adam(model.parameters())
        (model(part(batch(0)[0]))).sum().backward()
        optimizer.step()
        state = dict(zip(("model", "optimizer"), get_state_dict(model, optimizer), strict=True))
        assert "1.alpha" in state["model"]
        dcp.save(state, checkpoint_id=folder / name)
        other = build(net(seed=1))
        other_optimizer = torch.optim.Adam(other.parameters())
        empty = dict(zip(("model", "optimizer"), get_state_dict(other, other_optimizer), strict=True))
        dcp.load(empty, checkpoint_id=folder / name)
        set_state_dict(other, other_optimizer, model_state_dict=empty["model"], optim_state_dict=empty["optimizer"])
        for a, b in zip(model.parameters(), other.parameters(), strict=True):
            assert torch.equal(whole(a.detach()), whole(b.detach()))
            assert torch.equal(whole(optimizer.state[a]["exp_avg"]), whole(other_optimizer.state[b]["exp_avg"]))
        plain = {"model": net(seed=2).state_dict()}
        dcp.load(plain, checkpoint_id=folder / name, no_dist=True)
        for key, value in get_model_state_dict(model).items():
            assert torch.equal(whole(value), plain["model"][key])


@check
def deepcopy_of_a_sharded_slope(folder):
    model = tensor_parallel(net())
    twin = copy.deepcopy(model)
    assert twin[1].alpha.placements == model[1].alpha.placements


# Running them


def worker(rank, world, folder):
    torch.set_num_threads(1)
    dist.init_process_group(
        *("gloo", f"file://{folder}/rendezvous"), rank=rank, world_size=world, timeout=datetime.timedelta(seconds=60)
    )
    failures = {}
    for name, function in CHECKS.items():
        try:
            (folder / name).mkdir(exist_ok=True)
            function(folder / name)
        except Exception:
            failures[name] = traceback.format_exc()
        dist.barrier()
    torch.save(failures, folder / f"failures{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module", params=[2, pytest.param(4, marks=pytest.mark.slow)])
def failures(request, tmp_path_factory):
    """Of each rank, what failed, by the name of the check."""
    world, folder = request.param, tmp_path_factory.mktemp("world")
    mp.spawn(worker, (world, folder), nprocs=world)
    return [torch.load(folder / f"failures{rank}.pt") for rank in range(world)]


@pytest.mark.parametrize("name", CHECKS)
def test_on_all_ranks(failures, name):
    failed = {rank: own[name] for rank, own in enumerate(failures) if name in own}
    assert not failed, "\n".join(f"rank {rank}:\n{trace}" for rank, trace in failed.items())


def test_importing_leaky_ext_does_not_import_dtensor():
    code = "import sys, leaky_ext; assert 'torch.distributed.tensor' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
