"""revert: replacements, what is kept, errors, and equal outputs."""

import copy
import inspect
import io
import subprocess
import sys

import pytest
import torch
from torch import nn
from zoo import Net

from leaky_ext import AlphaMonitor, LearnableLeakyReLU, StraightThroughReLU, convert, revert

EVERY = {nn.PReLU: "learnable", nn.LeakyReLU: "learnable", nn.ReLU: "straight_through"}
LEARNABLE = LearnableLeakyReLU
X = torch.randn(4, 3, 10, 10, generator=torch.Generator().manual_seed(0))


def train(model, steps=5):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        model(X).square().mean().backward()
        optimizer.step()
    return model


def revert_one(layer, *args, **kwargs):
    model = nn.Sequential(layer)
    revert(model, *args, **kwargs)
    return model[0]


@pytest.mark.parametrize("rules", [None, EVERY])
def test_convert_train_revert(rules):
    model = Net()
    keys, types = list(model.state_dict()), [type(module) for module in model.modules()]
    convert(model, rules)
    slope = model.shared.weight
    before = train(model)(X)
    assert slope.item() if slope.numel() == 1 else not torch.equal(slope, torch.full((8,), 0.1))
    done = revert(model)
    assert torch.equal(model(X), before)
    assert not any(type(module).__module__.startswith("leaky_ext") for module in model.modules())
    assert model.shared is model.first[1] is model.first[3] and model.shared.weight is slope
    if rules is None:
        assert list(model.state_dict()) == keys and [type(module) for module in model.modules()] == types
    else:
        assert isinstance(model.second[1], nn.PReLU)  # its slope was trained
        assert isinstance(model.relu, nn.ReLU) and model.relu.inplace
    assert done[0].names == ("shared", "first.1", "first.3")
    assert revert(model) == []


@pytest.mark.parametrize("alpha", [0.3, 0.0, -0.5])
def test_equal_at_zeros_infinities_and_nan(alpha):
    x = torch.tensor([0.0, -0.0, 1.0, -1.0, float("inf"), float("-inf"), float("nan"), 1e-45, -1e-45])
    layers = {"prelu": LEARNABLE(init=alpha), "leaky_relu": LEARNABLE(init=alpha), "relu": StraightThroughReLU(alpha)}
    for kind, layer in layers.items():
        new = revert_one(copy.deepcopy(layer), {"0": kind})
        assert torch.equal(new(x).nan_to_num(7.0, 8.0, 9.0), layer(x).nan_to_num(7.0, 8.0, 9.0)), kind


def test_report_and_gradient_at_zero():
    model = nn.Sequential(LEARNABLE(3, init=0.2), StraightThroughReLU(0.1, inplace=True), LEARNABLE(inplace=True))
    planned = revert(model, dry_run=True)
    assert [type(module) for module in model] == [LEARNABLE, StraightThroughReLU, LEARNABLE]
    assert planned == revert(model)
    assert [str(change) for change in planned] == [
        "0: LearnableLeakyReLU(num_parameters=3, init=0.2, channel_dim=1) -> PReLU(num_parameters=3); "
        "gradient at x == 0: g before, alpha * g now",
        "1: StraightThroughReLU(alpha=0.1, inplace=True) -> ReLU(inplace=True); "
        "gradient at x == 0: g before, 0 now; gradient where x < 0: alpha * g before, 0 now",
        "2: LearnableLeakyReLU(num_parameters=1, init=0.01, inplace=True) -> PReLU(num_parameters=1); "
        "gradient at x == 0: g before, alpha * g now; no longer in place",
    ]
    x = torch.zeros(1, 3, requires_grad=True)
    model[0](x).sum().backward()
    torch.testing.assert_close(x.grad, torch.full((1, 3), 0.2))


def test_bounds_are_applied_first():
    layer = LEARNABLE(2, init=0.5, alpha_bounds=(0.0, 1.0)).eval()
    layer.alpha.data.copy_(torch.tensor([-3.0, 3.0]))
    x = torch.randn(5, 2)
    before = layer(x)
    model = nn.Sequential(layer)
    revert(model, dry_run=True)
    assert layer.alpha.tolist() == [-3.0, 3.0]
    revert(model)
    assert model[0].weight.tolist() == [0.0, 1.0] and torch.equal(model[0](x), before)
    one = LEARNABLE(init=0.5, alpha_bounds=(0.0, 1.0))
    nn.init.constant_(one.alpha, 7.0)
    assert revert_one(one, {"0": "leaky_relu"}).negative_slope == 1.0


def test_a_slope_as_a_constant():
    layer = LEARNABLE(init=0.3, inplace=True)
    layer.alpha.requires_grad_(False)
    x = torch.randn(100)
    before = layer(x.clone())
    new = revert_one(layer, {LEARNABLE: "leaky_relu"})
    assert type(new) is nn.LeakyReLU and new.inplace and torch.equal(new(x.clone()), before)
    assert revert_one(StraightThroughReLU(0.1, learnable=True, num_parameters=4)).state_dict() == {}


def test_by_name_and_left_alone():
    class Own(LEARNABLE):
        pass

    model = nn.ModuleDict({"a": LEARNABLE(), "b": LEARNABLE(), "c": LEARNABLE(), "own": Own()})
    revert(model, {"a": None, "b": "leaky_relu", LEARNABLE: "prelu"})
    assert [type(module) for module in model.values()] == [LEARNABLE, nn.LeakyReLU, nn.PReLU, Own]


def test_hooks_handles_training_mode_and_tied_slopes():
    model = nn.Sequential(LEARNABLE(), LEARNABLE(alpha_bounds=(0, 1)), LEARNABLE(alpha_bounds=(0, 1)))
    model[2].alpha = model[1].alpha
    model[0].eval()
    model[0].alpha.requires_grad_(False)
    seen = []
    handle = model[0].register_forward_hook(lambda m, a, y: seen.append(type(m)))
    model[0].register_load_state_dict_pre_hook(lambda m, *_: seen.append(type(m)))
    revert(model)
    assert model[1].weight is model[2].weight
    assert not model[0].training and model[1].training and not model[0].weight.requires_grad
    model(torch.randn(3))
    model.load_state_dict(model.state_dict())
    assert seen == [nn.PReLU, nn.PReLU]
    handle.remove()
    model(torch.randn(3))
    assert len(seen) == 2


def test_every_state_dict_of_the_way_loads():
    torch.manual_seed(1)
    model = Net()
    original = copy.deepcopy(model.state_dict())
    convert(model, EVERY | {nn.LeakyReLU: None})
    train(model)
    converted = copy.deepcopy(model.state_dict())
    revert(model)
    reverted = copy.deepcopy(model.state_dict())
    assert list(reverted) == list(original) and list(converted) == list(original)
    for module in (model, copy.deepcopy(model)):
        for state, slope in ((original, 0.1), (converted, None), (reverted, None)):
            module.load_state_dict(state, strict=True)
            expected = torch.full((8,), slope) if slope else reverted["shared.weight"]
            assert torch.equal(module.shared.weight, expected)
    convert(model)
    for state in (original, converted, reverted):
        model.load_state_dict(state, strict=True)
    assert torch.equal(model.shared.weight, reverted["shared.weight"])


def test_a_saved_slope_reaches_a_leaky_relu_and_not_a_relu():
    model = nn.Sequential(LEARNABLE(init=0.2), StraightThroughReLU(0.1, learnable=True))
    state = copy.deepcopy(model.state_dict())
    state["0.alpha"].fill_(0.75)
    revert(model, {LEARNABLE: "leaky_relu", StraightThroughReLU: "relu"})
    model.load_state_dict(state, strict=True)
    assert model[0].negative_slope == 0.75


def test_a_saved_model_needs_no_leaky_ext(tmp_path):
    model = Net()
    convert(model, EVERY)
    revert(model)
    torch.save((model, model(X), X), tmp_path / "model.pt")
    script = (
        "import sys, torch; sys.modules['leaky_ext'] = None\n"
        "sys.path.append(sys.argv[2]); model, y, x = torch.load(sys.argv[1], weights_only=False)\n"
        "torch.testing.assert_close(model(x), y)  # another process: convolutions need not give the same bits\n"
        "model.load_state_dict(model.state_dict(), strict=True)"
    )
    (tmp_path / "zoo.py").write_text("from torch import nn\nimport torch\n" + inspect.getsource(Net))
    subprocess.run([sys.executable, "-c", script, tmp_path / "model.pt", tmp_path], check=True)
    buffer = io.BytesIO()
    convert(model)
    torch.save(model, buffer)  # a converted one keeps its hook
    buffer.seek(0)
    torch.load(buffer, weights_only=False).load_state_dict(Net().state_dict() | {"second.1.weight": torch.ones(1)})


def test_optimizer_monitor_and_transformer_layer():
    layer = nn.TransformerEncoderLayer(8, 2, 16, activation=nn.ReLU(), batch_first=True).eval()
    x = torch.randn(2, 3, 8)
    convert(layer, {nn.ReLU: "learnable"}, alpha=5.0)
    expected = layer(x)
    revert(layer)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), expected)  # not the fused kernel, which would compute a ReLU
    model = nn.Sequential(nn.Linear(2, 2), LEARNABLE())
    monitor, optimizer = AlphaMonitor(model), torch.optim.SGD(model.parameters(), lr=1.0)
    revert(model)
    model(-torch.ones(3, 2)).sum().backward()
    before, grad = model[1].weight.detach().clone(), model[1].weight.grad.clone()
    optimizer.step()
    monitor.step()
    assert torch.equal(model[1].weight, before - grad)
    assert monitor.rows()[0]["alpha_mean"] == pytest.approx(model[1].weight.item())


def broadcast_slopes():
    layer = LEARNABLE(2)
    layer.alpha = nn.Parameter(torch.zeros(2, 1, 1))
    return layer


def tied():
    model = nn.Sequential(LEARNABLE(alpha_bounds=(0, 1)), LEARNABLE())
    model[1].alpha = model[0].alpha
    return model


@pytest.mark.parametrize(
    "model, rules, message",
    [
        (nn.Sequential(LEARNABLE()), {LEARNABLE: "gelu"}, "must be 'prelu', 'leaky_relu', 'relu' or None, got 'gelu'"),
        (
            nn.Sequential(LEARNABLE()),
            {nn.PReLU: "prelu"},
            "rules can name PReLU, LearnableLeakyReLU, StraightThroughReLU",
        ),
        (nn.Sequential(LEARNABLE()), {"x*": "prelu"}, r"'x\*' matches no activation; there are \['0'\]"),
        (nn.Sequential(LEARNABLE()), {"0": "relu"}, "'0' is a LearnableLeakyReLU.*'prelu' or 'leaky_relu' is the rule"),
        (nn.Sequential(StraightThroughReLU()), {"0": "prelu"}, "'0' is a StraightThroughReLU.*'relu' is the rule"),
        (nn.Sequential(LEARNABLE(2)), {"0": "leaky_relu"}, "'0' .* nn.LeakyReLU has one slope: 'prelu' is the rule"),
        (
            nn.Sequential(nn.PReLU(), LEARNABLE(alpha_bounds=(0, 1)), LEARNABLE(4, channel_dim=-1)),
            None,
            r"'2' is a LearnableLeakyReLU\(.*channel_dim=-1\).*put nn.PReLU\(4\) between two calls of movedim, or "
            r"leave it with rules {'2': None}",
        ),
        (nn.Sequential(broadcast_slopes()), None, r"'0' .* shape \(2, 1, 1\).* do not broadcast slopes: leave it"),
        (
            nn.Sequential(LEARNABLE(device="meta")),
            {LEARNABLE: "leaky_relu"},
            "'0' .* on the meta device.*load it first",
        ),
        (tied(), None, r"'0' keeps alpha in \(0.0, 1.0\), and '1', which shares it, in None: give both the same"),
    ],
)
def test_refused_before_anything_is_changed(model, rules, message):
    before = [type(module) for module in model.modules()]
    for module in model.modules():
        if isinstance(module, LEARNABLE) and not module.alpha.is_meta:
            module.alpha.data.fill_(3.0)
    with pytest.raises(ValueError, match=message):
        revert(model, rules)
    assert [type(module) for module in model.modules()] == before
    assert all(
        bool((slope == 3.0).all()) for name, slope in model.named_parameters() if "alpha" in name and not slope.is_meta
    )


def test_one_slope_goes_with_any_dimension():
    layer = revert_one(LEARNABLE(channel_dim=-1))
    assert type(layer) is nn.PReLU
