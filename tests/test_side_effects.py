"""forward writes only to its output: outputs, gradients, parameters and buffers equal those of the formula.

One matrix: modules x surrounding layers x ways to run x training mode. Each cell is compared with the eager formula.
"""

import contextlib
import copy
import itertools

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.nn.utils.parametrizations import spectral_norm
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.checkpoint import checkpoint

from leaky_ext import AlphaMonitor, LearnableLeakyReLU, PReLU, StraightThroughReLU, reference

BOUNDS = (0.1, 0.3)
OUTSIDE = {"init": 0.5, "alpha_bounds": BOUNDS}
MODULES = {
    "PReLU": lambda: PReLU(4),
    "PReLU, bounded": lambda: PReLU(4, **OUTSIDE),
    "learnable": lambda: LearnableLeakyReLU(4, 0.25),
    "learnable, bounded": lambda: LearnableLeakyReLU(4, **OUTSIDE),
    "straight-through": lambda: StraightThroughReLU(0.25, True, 4),
    "straight-through, bounded": lambda: StraightThroughReLU(0.5, True, 4, alpha_bounds=BOUNDS),
}
SMOKE = ("learnable, bounded", True)


class Inside(torch.autograd.Function):
    """A clamp with a gradient of 0 only if a descent step would lead further out."""

    @staticmethod
    def forward(ctx, slope, low, high):
        ctx.save_for_backward(slope)
        ctx.bounds = low, high
        return slope.clamp(low, high)

    @staticmethod
    def backward(ctx, grad):
        (slope,), (low, high) = ctx.saved_tensors, ctx.bounds
        further_out = ((slope > high) & (grad < 0)) | ((slope < low) & (grad > 0))
        return torch.where(further_out, 0.0, grad), None, None


class Formula(nn.Module):
    """The expected computation of a module, in plain PyTorch, with the same parameters. Exporters get a plain clamp."""

    def __init__(self, module, plain_clamp=False):
        super().__init__()
        self.of = [module]
        self.plain_clamp = plain_clamp
        for name, parameter in module.named_parameters():
            self.register_parameter(name, parameter)

    def forward(self, x):
        (module,) = self.of
        slope = getattr(self, module.slope_name)
        if module.alpha_bounds is not None:
            slope = slope.clamp(*BOUNDS) if self.plain_clamp else Inside.apply(slope, *BOUNDS)
        if isinstance(module, StraightThroughReLU):
            return reference.straight_through_relu(x, slope)
        return reference.learnable_leaky_relu(x, slope)


class Net(nn.Module):
    """An activation between layers that write to their own buffers."""

    def __init__(self, act, without=()):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))
        self.norm = nn.Identity() if "BatchNorm" in without else nn.BatchNorm1d(4)
        self.linear = nn.Linear(4, 4) if "spectral_norm" in without else spectral_norm(nn.Linear(4, 4))
        self.act = act

    def forward(self, x):
        self.calls += 1
        return self.act(self.linear(self.norm(x)))


def snapshot(model):
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def twin_of(model, plain_clamp=False):
    twin = copy.deepcopy(model)
    twin.act = Formula(twin.act, plain_clamp)
    return twin


def outcome(call, model, x):
    """Returns output, gradients and state after a call, with the names in the model itself."""
    leaf = x.clone().requires_grad_()
    y = call(leaf)
    y.square().sum().backward()
    whole = FullyShardedDataParallel.summon_full_params if isinstance(model, FullyShardedDataParallel) else None
    with whole(model, with_grads=True) if whole else contextlib.nullcontext():
        parameters = {n: p.grad for n, p in model.named_parameters()}
        state = {n: t.detach().clone() for n, t in [*model.named_parameters(), *model.named_buffers()]}
    return y.detach(), leaf.grad, parameters, state


def assert_same(got, expected):
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def functional(model):
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    return lambda x: torch.func.functional_call(model, tensors, (x,))


RUNS = {
    "eager": lambda model: model,
    "aot_eager": lambda model: torch.compile(model, backend="aot_eager"),
    "inductor": lambda model: torch.compile(model, backend="inductor"),
    "functional_call": functional,
    "checkpoint": lambda model: lambda x: checkpoint(model, x, use_reentrant=False),
    "reentrant checkpoint": lambda model: lambda x: checkpoint(model, x, use_reentrant=True),
}
# What counts calls is called twice under a checkpoint. Inductor's gradient of a spectral norm differs from the eager
# one with PyTorch's own activations too.
RUN_THE_TWIN_TOO = ("inductor", "checkpoint", "reentrant checkpoint")


def cells(runs, slow=(), smoke=SMOKE):
    """Returns run x module x training. Cells of slow runs are marked slow, except the cell `smoke` of each run."""
    params = []
    for run, name, training in itertools.product(runs, MODULES, (True, False)):
        marks = [pytest.mark.slow] if run in slow and (name, training) != smoke else []
        params.append(
            pytest.param(run, name, training, marks=marks, id=f"{run}-{name}-{'train' if training else 'eval'}")
        )
    return params


def monitored(cell):
    """Returns the model with an AlphaMonitor, which records only forwards in training mode."""
    return pytest.param(*cell.values[:3], True, marks=cell.marks, id=f"{cell.id}-monitored")


PLAIN = [pytest.param(*c.values, False, marks=c.marks, id=c.id) for c in cells(RUNS, slow=["inductor"], smoke=None)]


@pytest.mark.parametrize("run, name, training, is_monitored", PLAIN + [monitored(c) for c in PLAIN if c.values[2]])
def test_everything_is_as_the_formula_leaves_it(run, name, training, is_monitored):
    torch._dynamo.reset()
    model = Net(MODULES[name]()).train(training)
    twin = twin_of(model)
    if is_monitored:
        AlphaMonitor(model)
    before, x = snapshot(model.act), torch.randn(8, 4)
    got = outcome(RUNS[run](model), model, x)
    assert_same(got, outcome(RUNS[run](twin) if run in RUN_THE_TWIN_TOO else twin, twin, x))
    for key, tensor in snapshot(model.act).items():
        assert torch.equal(tensor, before[key])


@pytest.fixture(scope="module")
def process_group():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def ema(model):
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.5), use_buffers=True)
    averaged.train(model.training)
    for _ in range(2):
        averaged.update_parameters(model)
    return averaged, averaged.module


def wrapped(model, kind, **options):
    wrapper = kind(model, **options)
    return wrapper, wrapper if kind is FullyShardedDataParallel else wrapper.module


WRAPPERS = {
    "EMA": ema,
    "DataParallel": lambda model: wrapped(model, DataParallel),
    "DDP": lambda model: wrapped(model, DistributedDataParallel),
    "FSDP1": lambda model: wrapped(
        model, FullyShardedDataParallel, device_id=torch.device("cpu"), use_orig_params=True
    ),
}


@pytest.mark.filterwarnings("ignore:FSDP is switching")
@pytest.mark.filterwarnings("ignore:.*FullyShardedDataParallel")
@pytest.mark.parametrize("run, name, training", cells(WRAPPERS))
def test_wrapped(run, name, training, process_group):
    model = Net(MODULES[name]()).train(training)
    twin, before, x = twin_of(model), snapshot(model.act), torch.randn(8, 4)
    call, module = WRAPPERS[run](model)
    y, grad, grads, state = outcome(call, module, x)

    def plain(tensors):
        return {name.removeprefix("_fsdp_wrapped_module."): tensor for name, tensor in tensors.items()}

    assert_same((y, grad, plain(grads), plain(state)), outcome(twin, twin, x))
    after = {name.removeprefix("act."): t for name, t in plain(state).items() if name.startswith("act.")}
    assert all(torch.equal(after[key], tensor) for key, tensor in before.items())


@pytest.mark.parametrize("run", ["eager", "aot_eager", "vmap of grad"])
@pytest.mark.parametrize(
    "start, sign, passes", [(0.2, 1, 1), (0.2, -1, 1), (0.5, 1, 1), (0.5, -1, 0), (0.05, -1, 1), (0.05, 1, 0)]
)
def test_the_gradient_leads_back_in(start, sign, passes, run):
    """For loss = sign * y at x == -1 and descent: d(loss)/d(alpha) is -sign, so sign == 1 raises the slope."""
    torch._dynamo.reset()
    module = LearnableLeakyReLU(init=start, alpha_bounds=BOUNDS)

    def loss(alpha, x):
        return (-sign * torch.func.functional_call(module, {"alpha": alpha}, (x,))).sum()

    x = -torch.ones(3, 1)
    if run == "vmap of grad":
        grads = torch.func.vmap(torch.func.grad(loss), (None, 0))(module.alpha.detach(), x)
        assert grads.flatten().tolist() == [sign * passes] * 3
        return
    call = module if run == "eager" else torch.compile(module, backend=run, fullgraph=True)
    (-sign * call(x)).sum().backward()
    assert module.alpha.grad.item() == 3 * sign * passes
