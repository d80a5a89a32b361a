"""Code that uses names or types works after convert: checkpoints of every format, optimizers, pickles."""

import copy
import io
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict
from torch.optim.swa_utils import AveragedModel

from leaky_ext import LearnableLeakyReLU, PReLU, convert, revert

DATA = Path(__file__).parent / "data"
ADAM = torch.optim.Adam


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 4), nn.PReLU(4), nn.Linear(4, 2), nn.PReLU())


def converted(seed=1):
    model = net(seed)
    convert(model)
    return model


def trained(model):
    optimizer = ADAM(model.parameters(), lr=0.1)
    model(torch.randn(8, 4)).sum().backward()
    optimizer.step()
    return optimizer


def test_a_prelu_stays_the_same_object_with_its_name_and_type():
    model = net()
    state, act, weight = copy.deepcopy(model.state_dict()), model[1], model[1].weight
    convert(model)
    assert model[1] is act and act.weight is weight and isinstance(act, nn.PReLU) and type(act) is PReLU
    assert list(model.state_dict()) == list(state) and [n for n, _ in model.named_parameters()] == list(state)


def plain(state, folder):
    return state


def dcp_folder(state, folder):
    dcp.save(state, checkpoint_id=folder)
    return folder


def load_plain(model, saved):
    model.load_state_dict(saved["model"])


def load_assigned(model, saved):
    model.load_state_dict(saved["model"], assign=True)


def load_weights_only(model, saved):
    buffer = io.BytesIO()
    torch.save(saved["model"], buffer)
    buffer.seek(0)
    model.load_state_dict(torch.load(buffer, weights_only=True))


def load_distributed(model, saved):
    state = {"model": model.state_dict()}
    dcp.load(state, checkpoint_id=saved)
    model.load_state_dict(state["model"])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("old, new", [(net, converted), (converted, net)], ids=["into the converted", "and back"])
@pytest.mark.parametrize(
    "save, load",
    [(plain, load_plain), (plain, load_assigned), (plain, load_weights_only), (dcp_folder, load_distributed)],
)
def test_checkpoints(old, new, save, load, tmp_path):
    source, target = old(seed=0), new(seed=1)
    trained(source)
    load(target, save({"model": source.state_dict()}, tmp_path))
    for (name, a), (other, b) in zip(source.named_parameters(), target.named_parameters(), strict=True):
        assert name == other and torch.equal(a, b)


def test_optimizer_state_by_name_and_by_position():
    source, target = net(), converted()
    optimizer, by_name, by_position = trained(source), trained(target), ADAM(target.parameters())
    set_optimizer_state_dict(target, by_name, get_optimizer_state_dict(source, optimizer))
    by_position.load_state_dict(optimizer.state_dict())
    for a, b in zip(source.parameters(), target.parameters(), strict=True):
        for other in (by_name, by_position):
            assert torch.equal(optimizer.state[a]["exp_avg"], other.state[b]["exp_avg"])


def test_an_average_of_the_old_model_goes_on_with_the_converted_one():
    model = net()
    average = AveragedModel(model, use_buffers=True)
    average.update_parameters(model)
    convert(model)
    trained(model)
    average.update_parameters(model)
    expected = (net()[1].weight + model[1].weight) / 2
    torch.testing.assert_close(average.module[1].weight, expected)


def test_a_scripted_copy_of_a_converted_model_is_that_of_a_reverted_one():
    model = converted()
    x = torch.randn(3, 4)
    expected = model(x)
    revert(model)
    torch.testing.assert_close(torch.jit.script(model)(x), expected)


def test_a_checkpoint_without_the_slope_sets_it_to_its_first_value():
    old = nn.Sequential(nn.Linear(4, 4), nn.LeakyReLU(0.2), nn.ReLU())
    with torch.device("meta"):
        deferred = copy.deepcopy(old)
    trainable, rules = copy.deepcopy(old), {nn.LeakyReLU: "learnable", nn.ReLU: "learnable"}
    for model in (deferred, trainable):
        convert(model, rules, alpha=0.0)
    trained(trainable)
    deferred.to_empty(device="cpu")
    x = torch.randn(3, 4)
    for model in (deferred, trainable):
        nn.init.constant_(model[1].alpha, float("nan"))  # what memory may hold
        model.load_state_dict(old.state_dict())
        assert torch.equal(model(x), old(x))
    function = torch.fx.symbolic_trace(Called())
    state = {name: tensor + 1.0 for name, tensor in function.state_dict().items()}
    convert(function, functions=True)
    function.load_state_dict(state)
    assert torch.equal(function.prelu.weight, state["slopes"]) and function.prelu.weight is function.slopes


class Called(nn.Module):
    def __init__(self):
        super().__init__()
        self.slopes = nn.Parameter(torch.rand(4))

    def forward(self, x):
        return nn.functional.prelu(x, self.slopes)


@pytest.mark.parametrize("kind", [PReLU, LearnableLeakyReLU])
def test_a_state_dict_that_calls_the_slope_by_its_other_name(kind):
    """0.2 saved `alpha` where PReLU has `weight`."""
    module = nn.Sequential(kind(4))
    for name in ("alpha", "weight"):
        slopes = torch.rand(4)
        module.load_state_dict({f"0.{name}": slopes.clone()}, strict=True)
        assert torch.equal(next(module.parameters()), slopes)
    with pytest.raises(RuntimeError, match="Missing key"):
        module.load_state_dict({})


@pytest.mark.parametrize("through", [lambda m: m, copy.deepcopy], ids=["loaded", "copied"])
def test_a_model_that_0_2_pickled(through):
    """One of each kind that 0.2 made, with a monitor."""
    model, x, y = torch.load(DATA / "model-0.2.pt", weights_only=False)
    model = through(model)
    assert torch.equal(model(x), y) and convert(model) == []
    state = copy.deepcopy(model.state_dict())
    assert list(state) == ["0.alpha", "1.alpha", "3.alpha"]
    model.load_state_dict({"0.weight": state["0.alpha"] + 1.0} | {key: state[key] for key in list(state)[1:]})
    assert torch.equal(model[0].alpha, state["0.alpha"] + 1.0)
    model.load_state_dict(state)
    model.train()(x).sum().backward()
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    assert torch.equal(torch.load(buffer, weights_only=False).eval()(x), y)
    revert(model)
    assert torch.equal(model.eval()(x), y) and list(model.state_dict()) == ["0.weight", "1.weight", "3.weight"]
    model.load_state_dict(state)
