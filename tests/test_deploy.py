"""convert, train, revert, export to ONNX, run in onnxruntime: native nodes and equal outputs."""

import copy

import pytest
import torch
from torch import nn
from zoo import PRELU, tensors, transformer

from leaky_ext import LearnableLeakyReLU, StraightThroughReLU, convert, revert

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
pytestmark = pytest.mark.filterwarnings("ignore")


def exported(model, x, path):
    """Returns the types of all nodes, including those in functions, and the outputs in onnxruntime."""
    torch.onnx.export(model.eval(), (x,), str(path), dynamo=True, verbose=False)
    graph = onnx.load(path)
    nodes = [node.op_type for nodes in (graph.graph.node, *(f.node for f in graph.functions)) for node in nodes]
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    outputs = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    return nodes, [torch.from_numpy(y) for y in outputs]


def test_activations_alone_are_native_and_equal_to_the_bit(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(
        *(LearnableLeakyReLU(3, init=nn.init.normal_), StraightThroughReLU(0.1)),
        *(LearnableLeakyReLU(init=0.3), LearnableLeakyReLU(init=-0.7, alpha_bounds=(-0.5, 0.5))),
    )
    model = nn.Sequential(model[0], model[2], model[3], model[1])  # ReLU last: the others need negative inputs
    x = torch.randn(2, 3, 8, 8)
    before = model.eval()(x)
    revert(model, {"1": "leaky_relu", LearnableLeakyReLU: "prelu", StraightThroughReLU: "relu"})
    nodes, (y,) = exported(model, x, tmp_path / "model.onnx")
    assert sorted(nodes) == ["LeakyRelu", "PRelu", "PRelu", "Relu"]
    assert torch.equal(y, before) and before.count_nonzero() > 10


@pytest.mark.parametrize(
    "layer, native",
    [
        (LearnableLeakyReLU(3, init=0.2), "PRelu"),
        (LearnableLeakyReLU(init=0.2), "PRelu"),
        (StraightThroughReLU(), "Relu"),
    ],
)
def test_what_is_not_reverted_exports_as_a_formula(layer, native, tmp_path):
    """Outputs are equal with the formula too. docs/export.md says why native nodes are better."""
    x = torch.randn(2, 3, 8, 8)
    before = layer(x)
    nodes, (y,) = exported(layer, x, tmp_path / "model.onnx")
    assert native not in nodes and torch.equal(y, before)


def round_trip(model, x, rules, tmp_path, native):
    """Converts, trains 5 steps, reverts and exports."""
    original = {key: value.shape for key, value in model.state_dict().items()}
    types = [type(module) for module in model.modules()]
    start = copy.deepcopy(model.state_dict())
    done = convert(model.train(), rules)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    for _ in range(5):
        optimizer.zero_grad()
        sum(y.square().mean() for y in tensors(model(x))).backward()
        optimizer.step()
    with torch.no_grad():
        trained = [y.clone() for y in tensors(model.eval()(x))]
    assert len(revert(model)) == len(done) > 0
    with torch.no_grad():
        reverted = tensors(model(x))
    assert all(torch.equal(a, b) for a, b in zip(reverted, trained, strict=True))
    assert {key: value.shape for key, value in model.state_dict().items()} == original
    assert [type(module) for module in model.modules()] == types
    assert any(not torch.equal(value, start[key]) for key, value in model.state_dict().items())
    nodes, outputs = exported(model, x, tmp_path / "model.onnx")
    assert nodes.count(native) == len(done)
    for y, expected in zip(outputs, trained, strict=True):
        torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("make, count", PRELU.values(), ids=PRELU)
def test_prelu_models(make, count, tmp_path):
    torch.manual_seed(0)
    model, shape = make()
    round_trip(model, torch.randn(shape), None, tmp_path, "PRelu")


class Logits(nn.Module):
    """A model of transformers, with tokens in and logits out."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, tokens):
        return self.model(tokens, use_cache=False).logits


@pytest.mark.slow
def test_a_transformer_with_a_relu_mlp(tmp_path):
    torch.manual_seed(0)
    tokens = torch.randint(64, (2, 16))
    round_trip(Logits(transformer()[0]), tokens, {nn.ReLU: "straight_through"}, tmp_path, "Relu")
