"""LearnableLeakyReLU and StraightThroughReLU: construction, parameters, state."""

import copy
import functools
import io
import pickle

import pytest
import torch
from torch import nn

from leaky_ext import LearnableLeakyReLU, PReLU, StraightThroughReLU, learnable_leaky_relu, reference


@pytest.mark.parametrize("save", ["input", "output"])
@pytest.mark.parametrize("channels", [1, 6])
def test_learnable_matches_the_reference(channels, save):
    module = LearnableLeakyReLU(channels, init=functools.partial(nn.init.uniform_, a=0.05, b=0.3), save=save)
    x = torch.randn(5, 6, 7, requires_grad=True)
    x2, alpha2 = x.detach().clone().requires_grad_(), module.alpha.detach().clone().requires_grad_()
    y, y2 = module(x), reference.learnable_leaky_relu(x2, alpha2)
    assert torch.equal(y, y2)
    g = torch.randn_like(y)
    y.backward(g), y2.backward(g)
    torch.testing.assert_close(x.grad, x2.grad)
    torch.testing.assert_close(module.alpha.grad, alpha2.grad)


@pytest.mark.parametrize(
    "make", [PReLU, LearnableLeakyReLU, lambda *args, **options: StraightThroughReLU(0.1, True, *args, **options)]
)
def test_slopes_go_with_channel_dim(make):
    slopes, x = torch.linspace(0.1, 0.7, 7), torch.randn(5, 6, 7, requires_grad=True)
    module = make(7, channel_dim=-1)
    with torch.no_grad():
        module.slope().copy_(slopes)
    module(x).sum().backward()
    torch.testing.assert_close(x.grad, torch.where(x >= 0, 1.0, slopes))
    torch.testing.assert_close(module.slope().grad, x.detach().clamp(max=0).sum((0, 1)))


def test_inplace_overwrites_the_input_with_slopes_of_the_last_dimension():
    module = LearnableLeakyReLU(7, init=0.2, channel_dim=-1, inplace=True)
    x = torch.randn(5, 6, 7, requires_grad=True)
    hidden = x * 1
    assert module(hidden) is hidden
    hidden.sum().backward()
    torch.testing.assert_close(module.alpha.grad, x.detach().clamp(max=0).sum((0, 1)))
    torch.testing.assert_close(x.grad, torch.where(x >= 0, 1.0, 0.2))


@pytest.mark.parametrize("learnable", [False, True])
def test_straight_through_has_relus_values_and_leaky_relus_gradients(learnable):
    module = StraightThroughReLU(0.3, learnable=learnable)
    x = torch.randn(50, requires_grad=True)
    y = module(x)
    assert torch.equal(y, x.detach().relu())
    y.sum().backward()
    torch.testing.assert_close(x.grad, torch.where(x >= 0, 1.0, 0.3))
    if learnable:
        torch.testing.assert_close(module.alpha.grad, x.detach().clamp(max=0).sum().reshape(1))
    else:
        assert not list(module.parameters()) and not module.state_dict() and module.alpha == 0.3


def test_straight_through_inplace_overwrites_the_input():
    x = torch.randn(50, requires_grad=True)
    hidden = x * 1
    assert StraightThroughReLU(0.3, inplace=True)(hidden) is hidden
    hidden.sum().backward()
    torch.testing.assert_close(x.grad, torch.where(x >= 0, 1.0, 0.3))


@pytest.mark.parametrize("num_parameters", [1, 5])
def test_alpha_is_one_dimensional(num_parameters):
    assert LearnableLeakyReLU(num_parameters).alpha.shape == (num_parameters,)
    assert StraightThroughReLU(learnable=True, num_parameters=num_parameters).alpha.shape == (num_parameters,)


def test_reset_parameters_gives_the_first_slopes_again():
    module = LearnableLeakyReLU(3, init=0.25)
    assert module.alpha.tolist() == [0.25] * 3
    with torch.no_grad():
        module.alpha.fill_(9)
    module.reset_parameters()
    assert module.alpha.tolist() == [0.25] * 3
    drawn = LearnableLeakyReLU(100, init=functools.partial(nn.init.uniform_, a=0.1, b=0.2)).alpha
    assert 0.1 <= drawn.min() < drawn.max() <= 0.2
    # A callable that does not turn gradients off itself.
    assert LearnableLeakyReLU(2, init=lambda tensor: tensor.copy_(torch.tensor([1.0, 2.0]))).alpha.tolist() == [
        1.0,
        2.0,
    ]
    straight = StraightThroughReLU(0.5, learnable=True)
    nn.init.zeros_(straight.alpha)
    straight.reset_parameters()
    assert straight.alpha.item() == 0.5


def test_alpha_has_the_dtype_that_was_asked_for():
    assert LearnableLeakyReLU(dtype=torch.float64).alpha.dtype == torch.float64
    assert StraightThroughReLU(learnable=True, dtype=torch.bfloat16).alpha.dtype == torch.bfloat16
    assert LearnableLeakyReLU().half().alpha.dtype == torch.float16


@pytest.mark.parametrize("make", [LearnableLeakyReLU, functools.partial(StraightThroughReLU, learnable=True)])
def test_modules_on_the_meta_device_can_be_materialized(make):
    module = make(num_parameters=4, device="meta")
    assert module.alpha.is_meta and module(torch.empty(2, 4, device="meta")).shape == (2, 4)
    module.to_empty(device="cpu").reset_parameters()
    assert module.alpha.tolist() == pytest.approx([0.01] * 4)
    with torch.device("meta"):
        assert make().alpha.is_meta


def test_state_dict_pickle_and_deepcopy_keep_slopes_and_options():
    model = nn.Sequential(LearnableLeakyReLU(3, init=0.1, save="output"), StraightThroughReLU(0.2, learnable=True))
    assert list(model.state_dict()) == ["0.alpha", "1.alpha"]
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    other = nn.Sequential(LearnableLeakyReLU(3), StraightThroughReLU(learnable=True))
    buffer.seek(0)
    other.load_state_dict(torch.load(buffer))
    assert torch.equal(other[0].alpha, model[0].alpha) and torch.equal(other[1].alpha, model[1].alpha)
    x = torch.randn(4, 3)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(twin(x), model(x)) and twin[0].save == "output"
        assert twin[0].alpha.data_ptr() != model[0].alpha.data_ptr()


def test_repr_shows_what_differs_from_the_default():
    assert repr(LearnableLeakyReLU()) == "LearnableLeakyReLU(num_parameters=1, init=0.01)"
    module = LearnableLeakyReLU(3, nn.init.zeros_, -1, "output", True, alpha_bounds=(0.1, 1))
    assert module.extra_repr() == (
        "num_parameters=3, init=zeros_, channel_dim=-1, save='output', inplace=True, alpha_bounds=(0.1, 1.0)"
    )
    module = StraightThroughReLU(0.1)
    assert repr(module) == "StraightThroughReLU(alpha=0.1)"
    module.alpha = 0.125
    assert repr(module) == "StraightThroughReLU(alpha=0.125)"
    assert (
        StraightThroughReLU(0.1, True, 3).extra_repr() == "alpha=0.1, learnable=True, num_parameters=3, channel_dim=1"
    )


@pytest.mark.parametrize(
    "make",
    [
        lambda: LearnableLeakyReLU(0),
        lambda: LearnableLeakyReLU(save="both"),
        lambda: LearnableLeakyReLU(alpha_bounds=(1, 0)),
        lambda: LearnableLeakyReLU(alpha_bounds=0.5),
        lambda: LearnableLeakyReLU(alpha_bounds=(0, 1), save="output"),
        lambda: LearnableLeakyReLU(alpha_bounds=(-1, 0), inplace=True),
        lambda: LearnableLeakyReLU(alpha_bounds=(0, float("nan"))),
        lambda: StraightThroughReLU(num_parameters=2),
        lambda: StraightThroughReLU(alpha_bounds=(0, 1)),
        lambda: StraightThroughReLU(learnable=True, inplace=True),
        lambda: StraightThroughReLU(learnable=True, num_parameters=0),
    ],
)
def test_misuse_is_a_value_error(make):
    with pytest.raises(ValueError):
        make()


def test_a_word_as_first_slope_is_a_type_error():
    with pytest.raises(TypeError, match="init must be a float or a function"):
        LearnableLeakyReLU(init="0.1")


def test_functional_call_uses_the_given_slopes():
    module = LearnableLeakyReLU(4)
    x = torch.randn(3, 4)
    slopes = {"alpha": torch.full((4,), 0.7)}
    expected = reference.learnable_leaky_relu(x, slopes["alpha"])
    torch.testing.assert_close(torch.func.functional_call(module, slopes, (x,)), expected)


def test_scripting_says_what_to_do():
    with pytest.raises(RuntimeError, match=r"LearnableLeakyReLU.*call leaky_ext\.revert first, or torch\.jit\.trace"):
        torch.jit.script(nn.Sequential(LearnableLeakyReLU()))


@pytest.mark.filterwarnings("ignore:Sparse")
@pytest.mark.parametrize("to", ["to_mkldnn", "to_sparse", "to_sparse_csr"])
@pytest.mark.parametrize("module", [LearnableLeakyReLU(), PReLU(4, alpha_bounds=(0, 1)), StraightThroughReLU()])
def test_tensors_that_are_not_strided_say_what_to_do(module, to):
    x = getattr(torch.randn(3, 4), to)()
    with pytest.raises(NotImplementedError, match=r"leaky_ext: x has layout .*: pass x\.to_dense\(\)"):
        module(x)
    with pytest.raises(NotImplementedError, match=r"leaky_ext: alpha has layout .*: pass alpha\.to_dense\(\)"):
        learnable_leaky_relu(torch.randn(3, 4), x)


def test_a_subclass_prints_its_own_name():
    class Own(PReLU):
        pass

    assert repr(PReLU()) == "leaky_ext.PReLU(num_parameters=1)" and repr(Own()) == "Own(num_parameters=1)"


@pytest.mark.parametrize("make", [PReLU, LearnableLeakyReLU, functools.partial(StraightThroughReLU, learnable=True)])
def test_models_stacked_for_vmap(make):
    models = [nn.Sequential(nn.Linear(4, 4), make(num_parameters=4)) for _ in range(3)]
    parameters, buffers = torch.func.stack_module_state(models)
    base, x = copy.deepcopy(models[0]).to("meta"), torch.randn(5, 4)

    def call(parameters):
        one = lambda p, b: torch.func.functional_call(base, (p, b), (x,))  # noqa: E731
        return torch.vmap(one)(parameters, buffers)

    torch.testing.assert_close(call(parameters), torch.stack([model(x) for model in models]))
    grads = torch.func.grad(lambda p: call(p).square().sum())(parameters)
    torch.stack([model(x) for model in models]).square().sum().backward()
    for name, grad in grads.items():
        torch.testing.assert_close(grad, torch.stack([model.get_parameter(name).grad for model in models]))
