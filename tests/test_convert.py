"""convert: what is replaced, what is kept, and that models compute and train as before."""

import copy
import io

import pytest
import torch
from torch import nn
from zoo import Net

from leaky_ext import PReLU, StraightThroughReLU, convert


def path(model, steps=20, data=None):
    """Returns the losses and the final parameters of a short training."""
    torch.manual_seed(1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    losses = []
    for _ in range(steps):
        x, target = torch.randn(4, 3, 10, 10), torch.randn(4, 2)
        optimizer.zero_grad()
        loss = (model(x) - target).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses, [parameter.detach() for parameter in model.parameters()]


BOTH = {nn.PReLU: "learnable", nn.LeakyReLU: "learnable"}


@pytest.mark.parametrize("rules", [None, BOTH])
def test_outputs_are_the_same_to_the_bit(rules):
    model = Net()
    x = torch.randn(4, 3, 10, 10)
    before = model(x)
    convert(model, rules)
    assert torch.equal(model(x), before)


def test_trains_as_before():
    old, new = Net(), Net()
    new.load_state_dict(old.state_dict())
    convert(new)
    losses, parameters = path(old)
    new_losses, new_parameters = path(new)
    torch.testing.assert_close(new_losses, losses, rtol=1e-6, atol=1e-6)
    for a, b in zip(new_parameters, parameters, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


def test_leaky_relu_with_a_frozen_slope_trains_as_before():
    old = Net()
    new = copy.deepcopy(old)
    convert(new, BOTH)
    new.second[1].alpha.requires_grad_(False)
    losses, _ = path(old)
    new_losses, _ = path(new)
    torch.testing.assert_close(new_losses, losses, rtol=1e-6, atol=1e-6)
    assert new.second[1].inplace and new.second[1].alpha.item() == pytest.approx(0.2)


def test_default_and_report():
    model = Net()
    done = convert(model)
    assert [change.names for change in done] == [("shared", "first.1", "first.3"), ("second.3",)]
    assert done[0].before == "PReLU(num_parameters=8)"
    assert done[0].after == "leaky_ext.PReLU(num_parameters=8, channel_dim=1)"
    assert "gradient at x == 0: alpha * g before, g now" in str(done[0])
    assert isinstance(model.second[1], nn.LeakyReLU) and isinstance(model.relu, nn.ReLU)
    assert convert(model) == []


def test_gradient_at_zero_is_what_the_report_says():
    g = {}
    for kind, layer in {"before": nn.PReLU(), "now": convert_one(nn.PReLU())}.items():
        x = torch.zeros(1, requires_grad=True)
        layer(x).backward()
        g[kind] = x.grad.item()
    assert g == {"before": 0.25, "now": 1.0}


def convert_one(layer, *args, **kwargs):
    model = nn.Sequential(layer)
    convert(model, *args, **kwargs)
    return model[0]


def test_dry_run_changes_nothing():
    model = Net()
    before = [type(module) for module in model.modules()]
    planned = convert(model, BOTH, dry_run=True)
    assert [type(module) for module in model.modules()] == before
    assert planned == convert(model, BOTH)


def test_sharing():
    model = Net()
    weight = model.shared.weight
    convert(model, {nn.PReLU: "learnable", nn.ReLU: "learnable"})
    assert model.shared is model.first[1] is model.first[3]
    assert model.shared.weight is weight
    tied = nn.Sequential(nn.PReLU(), nn.PReLU())
    tied[1].weight = tied[0].weight
    convert(tied)
    assert tied[0] is not tied[1] and tied[0].weight is tied[1].weight


def test_an_optimizer_that_exists_goes_on():
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    convert(model)
    model(torch.randn(2, 3, 10, 10)).sum().backward()
    before = model.shared.weight.detach().clone()
    optimizer.step()
    torch.testing.assert_close(model.shared.weight, before - model.shared.weight.grad)


def test_hooks_and_their_handles():
    model = nn.Sequential(nn.PReLU(), nn.ReLU())
    seen = []
    handles = [
        model[0].register_forward_pre_hook(lambda m, a: seen.append("pre")),
        model[0].register_forward_hook(lambda m, a, k, y: seen.append(type(m).__name__), with_kwargs=True),
        model[0].register_full_backward_hook(lambda m, gi, go: seen.append("backward")),
        model[0].weight.register_hook(lambda g: seen.append("parameter")),
    ]
    convert(model)
    model(torch.randn(3, requires_grad=True)).sum().backward()
    assert sorted(seen) == ["PReLU", "backward", "parameter", "pre"]
    seen.clear()
    for handle in handles:
        handle.remove()
    model(torch.randn(3, requires_grad=True)).sum().backward()
    assert seen == []


def test_training_mode_dtype_device_and_frozen():
    model = nn.Sequential(nn.Linear(2, 2), nn.PReLU(), nn.Sequential(nn.LeakyReLU()), nn.ReLU()).double()
    model[1].eval()
    model[1].weight.requires_grad_(False)
    convert(model, {nn.PReLU: "learnable", nn.LeakyReLU: "learnable", nn.ReLU: "straight_through"})
    assert not model[1].training and model[2].training
    assert not model[1].weight.requires_grad and model[2][0].alpha.requires_grad
    assert model[2][0].alpha.dtype == torch.float64
    with torch.device("meta"):
        empty = nn.Sequential(nn.Linear(2, 2), nn.LeakyReLU())
    assert convert(empty, BOTH) and empty[1].alpha.is_meta


@pytest.mark.parametrize("rules", [None, BOTH | {nn.ReLU: "learnable"}, {nn.PReLU: "straight_through"}])
def test_the_old_state_dict_loads(rules):
    old = Net()
    path(old, 2)
    buffer = io.BytesIO()
    torch.save(old.state_dict(), buffer)
    buffer.seek(0)
    new = Net()
    convert(new, rules)
    for module in (new, copy.deepcopy(new)):
        module.load_state_dict(torch.load(buffer), strict=True)
        buffer.seek(0)
        assert torch.equal(module.shared.slope(), old.shared.weight)
        twin = copy.deepcopy(module)
        twin.load_state_dict(module.state_dict(), strict=True)  # its own too
    wrong = old.state_dict() | {"second.3.slope": torch.ones(1)}
    with pytest.raises(RuntimeError, match=r"second\.3\.slope"):
        new.load_state_dict(wrong)
    del wrong["second.3.slope"], wrong["second.3.weight"]
    with pytest.raises(RuntimeError, match=r"second\.3\.(alpha|weight)"):
        new.load_state_dict(wrong)


def test_by_name():
    model = Net()
    convert(model, {"second.*": None, "re*": "straight_through", nn.PReLU: "learnable"}, alpha=0.3)
    assert type(model.shared) is PReLU and type(model.second[3]) is nn.PReLU
    assert type(model.relu) is StraightThroughReLU and model.relu.alpha == 0.3 and model.relu.inplace
    # A shared activation goes by any of its names.
    model = Net()
    (change,) = convert(model, {"first.3": "learnable"})
    assert "shared" in change.names


def test_relu_as_a_learnable_slope():
    layer = convert_one(nn.ReLU(inplace=True), {nn.ReLU: "learnable"}, alpha=0.0)
    assert not layer.inplace  # the input cannot be rebuilt from a slope of 0
    x = torch.randn(10)
    assert torch.equal(layer(x), x.relu())
    assert not convert_one(nn.LeakyReLU(0.1, True), BOTH, alpha_bounds=(0, 1)).inplace
    bounded = convert_one(nn.ReLU(), {nn.ReLU: "learnable"}, alpha_bounds=(0.0, 0.5))
    assert bounded.alpha_bounds == (0.0, 0.5) and bounded.alpha.item() == pytest.approx(0.01)


def test_prelu_straight_through_keeps_its_slopes():
    layer = convert_one(nn.PReLU(3, init=0.4), {nn.PReLU: "straight_through"})
    assert layer.learnable and torch.equal(layer.alpha, torch.full((3,), 0.4))


def test_subclasses_are_left_alone():
    class Own(nn.ReLU):
        def forward(self, x):
            return x + 1

    assert type(convert_one(Own(), {nn.ReLU: "learnable"})) is Own
    assert type(convert_one(nn.ReLU6(), {nn.ReLU: "learnable"})) is nn.ReLU6


def test_fused_inference_of_a_transformer_layer_is_left():
    layer = nn.TransformerEncoderLayer(8, 2, 16, activation=nn.ReLU(), batch_first=True).eval()
    x = torch.randn(2, 3, 8)
    with torch.no_grad():
        before = layer(x)
        convert(layer, {nn.ReLU: "straight_through"})
        torch.testing.assert_close(layer(x), before)
    layer = nn.TransformerEncoderLayer(8, 2, 16, activation=nn.ReLU(), batch_first=True).eval()
    convert(layer, {nn.ReLU: "learnable"}, alpha=5.0)
    expected = layer(x.requires_grad_())  # a gradient is needed: never fused
    with torch.no_grad():
        torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize(
    "model, rules, message",
    [
        (Net(), {nn.ReLU: "leaky"}, "must be 'learnable', 'straight_through' or None"),
        (Net(), {nn.GELU: "learnable"}, "GELU"),
        (Net(), {"layer*": "learnable"}, r"'layer\*' matches no activation; there are \['shared'"),
    ],
)
def test_misuse(model, rules, message):
    with pytest.raises(ValueError, match=message):
        convert(model, rules)
