"""Forward writes to nothing but its output: outputs, gradients, parameters and buffers equal those of the formula."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import prune
from torch.nn.utils.parametrizations import spectral_norm

from leaky_ext import AlphaMonitor, LearnableLeakyReLU, PReLU, StraightThroughReLU, convert, parameter_groups, reference

OUTSIDE = {"init": 0.5, "alpha_bounds": (0.1, 0.3)}
MODULES = {
    "PReLU": lambda: PReLU(4),
    "PReLU, bounded": lambda: PReLU(4, **OUTSIDE),
    "learnable": lambda: LearnableLeakyReLU(4, 0.25),
    "learnable, bounded": lambda: LearnableLeakyReLU(4, **OUTSIDE),
    "straight-through": lambda: StraightThroughReLU(0.25, True, 4),
    "straight-through, bounded": lambda: StraightThroughReLU(0.5, True, 4, alpha_bounds=(0.1, 0.3)),
}


class Formula(nn.Module):
    """What a module should compute, in plain PyTorch, with the same parameters."""

    def __init__(self, module):
        super().__init__()
        self.of = [module]
        for name, parameter in module.named_parameters():
            self.register_parameter(name, parameter)

    def forward(self, x):
        (module,) = self.of
        slope = getattr(self, module.slope_name)
        if module.alpha_bounds is not None:
            slope = slope.clamp(*module.alpha_bounds)
        if isinstance(module, StraightThroughReLU):
            return reference.straight_through_relu(x, slope)
        return reference.learnable_leaky_relu(x, slope)


class Net(nn.Module):
    """The layers that write to buffers of their own, around an activation."""

    def __init__(self, act):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))
        self.norm = nn.BatchNorm1d(4)
        self.linear = spectral_norm(nn.Linear(4, 4))
        self.act = act

    def forward(self, x):
        self.calls += 1
        return self.act(self.linear(self.norm(x)))


def snapshot(model):
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def functional(model):
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    return lambda x: torch.func.functional_call(model, tensors, (x,))


RUNS = {
    "eager": lambda model: model,
    "aot_eager": lambda model: torch.compile(model, backend="aot_eager"),
    "inductor": lambda model: torch.compile(model, backend="inductor"),
    "functional_call": functional,
}


@pytest.mark.parametrize("monitored", [False, True])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("run", [pytest.param(r, marks=pytest.mark.slow) if r == "inductor" else r for r in RUNS])
@pytest.mark.parametrize("name", MODULES)
def test_everything_is_as_the_formula_leaves_it(name, run, training, monitored):
    torch._dynamo.reset()
    model = Net(MODULES[name]()).train(training)
    twin = copy.deepcopy(model)
    twin.act = Formula(twin.act)
    if monitored:
        AlphaMonitor(model)
    before = snapshot(model.act)
    x = torch.randn(8, 4)
    results = []
    for one in (model, twin):
        leaf = x.clone().requires_grad_()
        # Inductor's gradient of a spectral norm differs from the eager one with PyTorch's own activations too.
        y = (RUNS[run](one) if one is model or run == "inductor" else one)(leaf)
        y.square().sum().backward()
        grads = {n: p.grad for n, p in one.named_parameters() if not n.startswith("act.")}
        results.append((y.detach(), leaf.grad, grads, snapshot(one)))
    torch.testing.assert_close(results[0], results[1], rtol=1e-5, atol=1e-5)
    for key, tensor in snapshot(model.act).items():
        assert torch.equal(tensor, before[key])


@pytest.mark.parametrize("run", ["eager", "aot_eager", "vmap of grad"])
@pytest.mark.parametrize(
    "start, sign, passes", [(0.2, 1, 1), (0.2, -1, 1), (0.5, 1, 1), (0.5, -1, 0), (0.05, -1, 1), (0.05, 1, 0)]
)
def test_the_gradient_leads_back_in(start, sign, passes, run):
    """For loss = sign * y at x == -1 and descent: d(loss)/d(alpha) is -sign, so sign == 1 raises the slope."""
    torch._dynamo.reset()
    module = LearnableLeakyReLU(init=start, alpha_bounds=(0.1, 0.3))

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


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", ["export", "strict export", "decomposed", "onnx", "legacy onnx", "trace and freeze"])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", MODULES)
def test_exported(name, training, form, tmp_path):
    module = MODULES[name]().train(training)
    x = torch.randn(8, 4)
    expected = Formula(module)(x).detach()
    if form in ("export", "strict export", "decomposed"):
        program = torch.export.export(module, (x,), strict=form == "strict export")
        program = program.run_decompositions() if form == "decomposed" else program
        y = program.module()(x)
    elif form == "trace and freeze":
        y = torch.jit.freeze(torch.jit.trace(module.eval(), x))(x)
    else:
        runtime = pytest.importorskip("onnxruntime")
        path = str(tmp_path / "module.onnx")
        torch.onnx.export(module.eval(), (x,), path, dynamo=form == "onnx")
        session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
        y = torch.from_numpy(session.run(None, {session.get_inputs()[0].name: x.numpy()})[0])
    torch.testing.assert_close(y.detach(), expected)


def test_a_converted_prelu_keeps_its_name_type_and_checkpoints():
    model = nn.Sequential(nn.Linear(4, 4), nn.PReLU(4))
    state, act, weight = copy.deepcopy(model.state_dict()), model[1], model[1].weight
    convert(model)
    assert model[1] is act and act.weight is weight and isinstance(act, nn.PReLU) and type(act) is PReLU
    assert list(model.state_dict()) == list(state)
    model.load_state_dict(state)
    state["1.alpha"] = state.pop("1.weight") + 1  # as 0.2 saved it
    model.load_state_dict(state)
    assert torch.equal(act.weight, state["1.alpha"])


def test_a_transformer_encoder_with_a_padding_mask():
    layer = nn.TransformerEncoderLayer(8, 2, 16, activation=nn.ReLU(), batch_first=True)
    model = nn.TransformerEncoder(layer, 2).eval()
    convert(model, {nn.ReLU: "learnable"}, alpha=5.0)
    x, mask = torch.randn(2, 3, 8), torch.tensor([[False, False, True], [False, False, False]])
    expected = model(x.clone().requires_grad_(), src_key_padding_mask=mask)
    with torch.no_grad():
        torch.testing.assert_close(model(x, src_key_padding_mask=mask), expected)


class Own(nn.PReLU):
    pass


def pruned():
    module = nn.PReLU(4)
    prune.l1_unstructured(module, "weight", 1)
    return module


def parametrized(module=None):
    module = module or nn.PReLU(4)
    torch.nn.utils.parametrize.register_parametrization(module, "weight", nn.Softplus())
    return module


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "make, words",
    [
        (Own, "subclass of PReLU"),
        (pruned, "pruned"),
        (parametrized, "parametrized"),
        (lambda: torch.jit.script(nn.PReLU()), "scripted"),
        (lambda: torch.ao.nn.quantized.PReLU(1.0, 0), "quantized"),
    ],
)
def test_what_cannot_be_converted_is_named(make, words):
    model = nn.Sequential(make())
    kind = type(model[0])
    (change,) = convert(model)
    assert words in change.skipped and change.names == ("0",) and "stays" in str(change)
    assert type(model[0]) is kind and convert(model, {nn.PReLU: None}) == []


def test_a_parametrized_slope_in_the_tools():
    module = parametrized(PReLU(4, alpha_bounds=(0.0, 2.0)))
    (group,) = parameter_groups(nn.Sequential(module), weight_decay=0.1)
    assert group["weight_decay"] == 0.0
    monitor = AlphaMonitor(module)
    module(-torch.ones(2, 4)).sum().backward()
    monitor.step()
    (row,) = monitor.rows()
    assert row["grad_norm"] == pytest.approx(module.parametrizations.weight.original.grad.norm().item())
    with pytest.raises(RuntimeError, match="computed from other parameters"):
        module.project_()


def test_a_module_that_an_older_torch_pickled():
    model = nn.Sequential(nn.PReLU(4))
    del vars(model[0])["init"]
    convert(model)
    assert type(model[0]) is PReLU and model(torch.ones(2, 4)).shape == (2, 4)
