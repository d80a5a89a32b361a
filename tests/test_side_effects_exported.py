"""The matrix of test_side_effects for exporters, compared with the plain formula."""

import pytest
import torch
from test_side_effects import MODULES, Formula, Net, assert_same, cells, outcome, snapshot, twin_of

from leaky_ext import AlphaMonitor


def saw_nothing(monitor):
    """Checks that the exported or traced program contains no monitor."""
    monitor.step()
    return all(row["negative"] != row["negative"] for row in monitor.rows())


def export(model, x, decomposed=False, **options):
    program = torch.export.export(model, (x,), **options)
    module = (program.run_decompositions() if decomposed else program).module()
    return module, module


def trace(model, x):
    # The check calls the model again, whose counter has gone on.
    traced = torch.jit.trace(model, x, check_trace=False)
    return traced, model


EXPORTS = {
    "export": export,
    "strict export": lambda model, x: export(model, x, strict=True),
    "decomposed": lambda model, x: export(model, x, decomposed=True),
    "trace": trace,
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("run, name, training", cells(EXPORTS, slow=["export", "strict export", "decomposed"]))
def test_exported_with_gradients(run, name, training):
    # In these, layers that write to their buffers in training have no gradient, with PyTorch's own activations too.
    without = ("BatchNorm", "spectral_norm") if training and run in ("decomposed", "trace") else ()
    model, x = Net(MODULES[name](), without).train(training), torch.randn(8, 4)
    monitor = AlphaMonitor(model)
    call, module = EXPORTS[run](model, x)
    twin = twin_of(model, plain_clamp=True)  # after tracing, which calls the model
    *got, state = outcome(call, module, x)
    *expected, expected_state = outcome(twin, twin, x)
    if run == "strict export" and not training:
        del expected_state["norm.num_batches_tracked"]  # unused, and left out of the program
    assert_same((*got, state), (*expected, expected_state))
    assert saw_nothing(monitor)


def onnx(module, x, path, **options):
    runtime = pytest.importorskip("onnxruntime")
    torch.onnx.export(module, (x,), path, **options)
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {session.get_inputs()[0].name: x.numpy()})[0])


def legacy_onnx(model, x, path):
    return onnx(model, x, path, dynamo=False, training=torch.onnx.TrainingMode.PRESERVE, do_constant_folding=False)


INFERENCE = {
    "legacy onnx": legacy_onnx,
    "onnx": lambda model, x, path: onnx(model, x, path, dynamo=True, verbose=False),
    "trace and freeze": lambda model, x, path: torch.jit.freeze(torch.jit.trace(model.eval(), x))(x),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("run, name, training", cells(INFERENCE, slow=["legacy onnx", "onnx"]))
def test_exported_to_run_without_torch(run, name, training, tmp_path):
    """Exports a network in evaluation mode and an activation in training mode, because freeze supports no others.

    The legacy exporter has no spectral norm.
    """
    model = MODULES[name]() if training else Net(MODULES[name](), ["spectral_norm"] if run == "legacy onnx" else ())
    model.train(training)
    before, monitor, x = snapshot(model), AlphaMonitor(model), torch.randn(8, 4)
    expected = (Formula(model) if training else twin_of(model))(x).detach()
    torch.testing.assert_close(INFERENCE[run](model, x, str(tmp_path / "model.onnx")).detach(), expected)
    assert saw_nothing(monitor)
    assert all(torch.equal(tensor, before[key]) for key, tensor in snapshot(model).items() if key != "calls")
