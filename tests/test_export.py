"""Exported programs run without leaky_ext, and calls are compiled only once."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter

import leaky_ext

BATCH = torch.export.Dim("batch", min=2, max=1024)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1),
            leaky_ext.LearnableLeakyReLU(4, init=0.2),
            leaky_ext.LearnableLeakyReLU(init=0.3, save="output"),
            nn.Conv2d(4, 4, 1),
            leaky_ext.StraightThroughReLU(0.1),
            leaky_ext.LearnableLeakyReLU(inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = leaky_ext.straight_through_relu(self.layers(x), torch.tensor([0.1, 0.2, 0.3, 0.4]))
        x = leaky_ext.learnable_leaky_relu(x - 0.1, -0.5)
        return leaky_ext.straight_through(x.sign(), x.tanh()) + leaky_ext.straight_through_relu_(x + 1, 0.1)


@pytest.fixture
def net() -> Net:
    return Net().eval()


@pytest.fixture
def x() -> Tensor:
    return torch.randn(5, 3, 6, 7)


def assert_free_of_us(program: torch.export.ExportedProgram) -> None:
    targets = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert targets
    assert not [target for target in targets if "leaky_ext" in target or not target.startswith(("aten", "<built-in"))]


@pytest.mark.parametrize("strict", [False, True])
def test_export(net: Net, x: Tensor, strict: bool, tmp_path: Path) -> None:
    program = torch.export.export(net, (x[:4],), dynamic_shapes=({0: BATCH},), strict=strict)
    assert_free_of_us(program)
    torch.export.save(program, tmp_path / "net.pt2")
    loaded = torch.export.load(tmp_path / "net.pt2").module()
    torch.testing.assert_close(loaded(x), net(x))


def test_exported_program_trains(net: Net, x: Tensor) -> None:
    module = torch.export.export(net, (x,)).module()
    module(x).sum().backward()
    net(x).sum().backward()
    for name, parameter in module.named_parameters():
        torch.testing.assert_close(parameter.grad, net.get_parameter(name).grad)


@pytest.mark.filterwarnings("ignore")
def test_onnx(net: Net, x: Tensor, tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    path = str(tmp_path / "net.onnx")
    torch.onnx.export(net, (x[:4],), path, dynamo=True, dynamic_shapes=({0: BATCH},), verbose=False)
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(y), net(x).detach(), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_aot_inductor(net: Net, x: Tensor, tmp_path: Path) -> None:
    program = torch.export.export(net, (x[:4],), dynamic_shapes=({0: BATCH},))
    path = torch._inductor.aoti_compile_and_package(program, package_path=str(tmp_path / "net.pt2"))
    torch.testing.assert_close(torch._inductor.aoti_load_package(path)(x), net(x))


@pytest.mark.slow
@pytest.mark.parametrize("decomposed", [False, True])
def test_aot_inductor_of_the_operator_itself(decomposed: bool, tmp_path: Path) -> None:
    """Fused where a call was compiled before, which registers the decompositions; else called in the program."""

    class Raw(nn.Module):
        def forward(self, x: Tensor, alpha: Tensor) -> Tensor:
            return torch.ops.leaky_ext.forward(x - 0.5, alpha, 0.0, 1, 0)

    x, alpha = torch.randn(2, 4, 8), torch.rand(4)
    code = (
        "import leaky_ext, leaky_ext.operators.inductor, sys, torch" if decomposed else "import leaky_ext, sys, torch"
    )
    code += "; torch._inductor.aoti_compile_and_package(torch.export.load(sys.argv[1]), package_path=sys.argv[2])"
    program, package = tmp_path / "raw.pt2", tmp_path / "compiled.pt2"
    torch.export.save(torch.export.export(Raw(), (x, alpha)), program)
    subprocess.run([sys.executable, "-c", code, program, package], check=True)
    torch.testing.assert_close(torch._inductor.aoti_load_package(str(package))(x, alpha), Raw()(x, alpha))
    with zipfile.ZipFile(package) as files:
        wrapper = next(files.read(name).decode() for name in files.namelist() if name.endswith(".wrapper.cpp"))
    assert ("leaky_ext" in wrapper) is not decomposed


@pytest.mark.filterwarnings("ignore")
def test_jit_trace(net: Net, x: Tensor) -> None:
    traced = torch.jit.trace(net, x)
    assert "leaky_ext::" not in str(traced.inlined_graph)
    torch.testing.assert_close(traced(x), net(x))


def test_no_graph_break_in_a_model(net: Net, x: Tensor) -> None:
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    compiled(x).sum().backward()
    grads = [parameter.grad.clone() for parameter in net.parameters()]
    net.zero_grad()
    net(x).sum().backward()
    torch.testing.assert_close([parameter.grad for parameter in net.parameters()], grads)


@pytest.mark.parametrize("function", [leaky_ext.learnable_leaky_relu, leaky_ext.straight_through_relu])
def test_nothing_that_changes_is_compiled_again(function: object) -> None:
    torch._dynamo.reset()
    counter = CompileCounter()
    compiled = torch.compile(function, fullgraph=True, dynamic=True, backend=counter)
    for rows, alpha in ((3, 0.1), (4, 0.2), (5, -0.3), (64, 7.0)):
        compiled(torch.randn(rows, 4), alpha)
    assert counter.frame_count == 1
    for rows, value in ((3, 0.1), (4, 0.2), (64, -0.3)):
        compiled(torch.randn(rows, 4), torch.tensor([value]))
    assert counter.frame_count == 2  # a tensor is another kind of slope than a float
    for rows in (3, 4, 64):
        compiled(torch.randn(rows, 4), torch.rand(4, requires_grad=True))
    assert counter.frame_count == 3


def test_a_tensor_slope_that_changes_is_not_compiled_again_without_dynamic_shapes() -> None:
    torch._dynamo.reset()
    counter = CompileCounter()
    compiled = torch.compile(leaky_ext.learnable_leaky_relu, fullgraph=True, backend=counter)
    for value in (0.1, 0.2, -0.3):
        compiled(torch.randn(3, 4), torch.tensor(value))
    assert counter.frame_count == 1
