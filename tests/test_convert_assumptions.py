"""convert and revert update containers, and name the modules that cannot be replaced."""

import copy
import functools

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed import fsdp
from torch.distributed.device_mesh import init_device_mesh
from torch.nn.utils import prune, weight_norm
from torch.nn.utils.parametrize import register_parametrization

from leaky_ext import (
    AlphaMonitor,
    LearnableLeakyReLU,
    PReLU,
    StraightThroughReLU,
    convert,
    parameter_groups,
    revert,
)

EVERY = {nn.PReLU: "learnable", nn.LeakyReLU: "learnable", nn.ReLU: "learnable"}
X = torch.randn(2, 3, 8)
MASK = torch.tensor([[False, False, True], [False, False, False]])


def encoder(activation=None, **options):
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, activation=activation or nn.ReLU(), batch_first=True, **options)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=not options).eval()


def is_fused(model):
    """Returns whether inference calls the fused kernel, with nested tensors for the layers."""
    with torch.no_grad(), torch.profiler.profile() as profile:
        model(X, src_key_padding_mask=MASK)
    names = {event.key for event in profile.key_averages()}
    return "aten::_transformer_encoder_layer_fwd" in names, "aten::_nested_tensor_from_mask" in names


def test_a_transformer_encoder_with_a_padding_mask():
    model = encoder()
    assert is_fused(model) == (True, True)
    convert(model, {nn.ReLU: "learnable"}, alpha=5.0)
    assert is_fused(model) == (False, False)
    expected = model(X.clone().requires_grad_(), src_key_padding_mask=MASK)
    with torch.no_grad():
        torch.testing.assert_close(model(X, src_key_padding_mask=MASK), expected)


@pytest.mark.parametrize(
    "there, back", [("learnable", "leaky_relu"), ("straight_through", "relu"), ("learnable", "prelu")]
)
def test_revert_restores_the_fused_path_of_a_relu_alone(there, back):
    model, plain = encoder(), encoder()
    convert(model, {nn.ReLU: there}, alpha=0.0)
    revert(model, {"*": back})
    assert is_fused(model) == ((True, True) if back == "relu" else (False, False))
    with torch.no_grad():  # what is masked is 0 in the fused path alone
        y, expected = (one(X, src_key_padding_mask=MASK)[~MASK] for one in (model, plain))
    torch.testing.assert_close(y, expected, atol=1e-5, rtol=1e-5)


def test_one_layer_of_an_encoder():
    model = encoder()
    convert(model, {"layers.1.activation": "learnable"}, alpha=5.0)
    expected = model(X.clone().requires_grad_(), src_key_padding_mask=MASK)
    with torch.no_grad():
        torch.testing.assert_close(model(X, src_key_padding_mask=MASK), expected)
    assert model.layers[0].activation_relu_or_gelu == 1 and not model.use_nested_tensor


def test_an_encoder_that_was_never_fused_stays_so():
    model = encoder(norm_first=True)
    convert(model, {nn.ReLU: "straight_through"})
    revert(model)
    assert not model.use_nested_tensor

    class Own(nn.TransformerEncoderLayer):
        def __init__(self):
            super().__init__(8, 2, 16, activation=nn.ReLU(), batch_first=True)
            self.activation_relu_or_gelu = 0  # its forward is not what the fused kernel computes

    layer = Own()
    convert(layer, {nn.ReLU: "straight_through"})
    revert(layer)
    assert layer.activation_relu_or_gelu == 0


class Own(nn.PReLU):
    pass


def pruned(module):
    prune.l1_unstructured(module, "weight", 1)
    return module


def parametrized(module):
    register_parametrization(module, "weight", nn.Softplus())
    return module


def lazy():
    module = nn.PReLU()
    module.weight = nn.UninitializedParameter()
    return module


def hooked():
    """Returns a module with a replaced forward, as from accelerate's add_hook_to_module."""
    module = nn.PReLU()
    module.forward = functools.partial(module.forward)
    return module


SKIPPED = {
    "subclass of PReLU": Own,
    "pruned": lambda: pruned(nn.PReLU(4)),
    "parametrized": lambda: parametrized(nn.PReLU(4)),
    "weight_norm": lambda: weight_norm(nn.PReLU(4)),
    "scripted": lambda: torch.jit.script(nn.PReLU()),
    "quantized": lambda: torch.ao.nn.quantized.PReLU(1.0, 0),
    "no shape yet": lazy,
    "forward was replaced": hooked,
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("words", SKIPPED)
def test_what_cannot_be_converted_is_named(words):
    model = nn.ModuleList([SKIPPED[words](), nn.PReLU()])
    kind = type(model[0])
    change, other = convert(model)
    assert words in change.skipped and change.names == ("0",) and "stays" in str(change)
    assert type(model[0]) is kind and type(model[1]) is PReLU and not other.skipped
    assert convert(model, {nn.PReLU: None}) == []


@pytest.mark.filterwarnings("ignore")
def test_a_relu_that_is_fused_for_quantization_is_named():
    model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU(), nn.ReLU()).eval()
    model = torch.ao.quantization.fuse_modules(model, [["0", "1"]])
    fused, other = convert(model, {nn.ReLU: "learnable"})
    assert fused.names == ("0.1",) and "fused for quantization" in fused.skipped
    assert other.names == ("2",) and not other.skipped


class OwnLeaky(LearnableLeakyReLU):
    pass


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "make, words",
    [
        (OwnLeaky, "subclass of LearnableLeakyReLU"),
        (lambda: pruned(PReLU(4)), "pruned"),
        (lambda: parametrized(PReLU(4, alpha_bounds=(0, 1))), "parametrized"),
        (lambda: torch.jit.trace(PReLU(4), torch.ones(2, 4)), "scripted"),
    ],
)
def test_what_cannot_be_reverted_is_named(make, words):
    model = nn.Sequential(make())
    (change,) = revert(model)
    assert words in change.skipped and change.names == ("0",)


@pytest.mark.parametrize("old", [nn.PReLU(3), nn.LeakyReLU(0.2), nn.ReLU()], ids=lambda m: type(m).__name__)
def test_an_activation_alone(old):
    module, x = copy.deepcopy(old), torch.randn(2, 3)
    (change,) = convert(module, EVERY, alpha=0.0)
    assert change.names == ("",) and type(module) is (PReLU if isinstance(old, nn.PReLU) else LearnableLeakyReLU)
    assert torch.equal(module(x), old(x))
    (change,) = revert(module)
    assert change.names == ("",) and type(module) is nn.PReLU and torch.equal(module(x), old(x))
    straight = nn.ReLU()
    convert(straight, {nn.ReLU: "straight_through"})
    assert type(straight) is StraightThroughReLU
    revert(straight)
    assert type(straight) is nn.ReLU


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


@pytest.fixture
def wrap():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield lambda kind, model: kind(model)
    dist.destroy_process_group()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["DistributedDataParallel", "FullyShardedDataParallel", "FSDPModule"])
def test_a_wrapper_that_would_not_know_the_new_parameter(kind, wrap):
    kinds = {
        "DistributedDataParallel": nn.parallel.DistributedDataParallel,
        "FullyShardedDataParallel": lambda m: fsdp.FullyShardedDataParallel(m, device_id=torch.device("cpu")),
        "FSDPModule": lambda m: fsdp.fully_shard(m, mesh=init_device_mesh("cpu", (1,))),
    }
    model = wrap(kinds[kind], nn.Sequential(nn.Linear(3, 3), nn.LeakyReLU()))
    with pytest.raises(ValueError, match=f"1' would get a new parameter inside .*{kind}.*: convert before wrapping"):
        convert(model, EVERY)
    assert not any(isinstance(module, LearnableLeakyReLU) for module in model.modules())
    (change,) = convert(model, {nn.LeakyReLU: "straight_through"})  # no new parameter
    assert not change.skipped


def test_a_new_slope_has_a_dtype_that_slopes_can_have():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2, dtype=torch.float16), nn.ReLU())
    model[0].weight = nn.Parameter(model[0].weight.detach().to(torch.float8_e4m3fn), requires_grad=False)
    model[0].bias = None
    convert(model, EVERY)
    assert model[2].alpha.dtype == torch.float16


def test_attributes_of_others_stay():
    model = nn.Sequential(nn.LeakyReLU(0.2))
    model[0].tag = "mine"
    convert(model, EVERY)
    assert model[0].tag == "mine" and not hasattr(model[0], "negative_slope")
    revert(model)
    assert model[0].tag == "mine" and vars(model[0]).keys() - vars(nn.PReLU()).keys() == {"tag"}
