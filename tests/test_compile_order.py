"""What Inductor compiles and saves, as the first and as the second compilation of a process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import leaky_ext

SCRIPT = Path(__file__).with_name("compile_order.py")


@pytest.mark.slow
@pytest.mark.parametrize("order", ["first", "second"])
def test_no_operator_is_left_and_no_more_is_kept_than_by_pytorchs_own(order: str) -> None:
    run = subprocess.run([sys.executable, SCRIPT, order], capture_output=True, text=True, timeout=900)
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout.splitlines()[-1])
    assert found
    assert {name: row["left"] for name, row in found.items() if row["left"]} == {}
    assert {name: row for name, row in found.items() if row["kept"] > row["PyTorch's"] * 1.001} == {}
    for name, row in found.items():
        if "save=output" in name:  # y and one byte per element in place of x and y
            assert row["kept"] <= 0.70 * row["PyTorch's"]


def test_inductors_table_holds_the_operators_after_registration() -> None:
    """Fails if a new torch keeps the table elsewhere. Calls would get `leaky_ext.reference` then."""
    from torch._inductor.decomposition import select_decomp_table

    from leaky_ext.operators import inductor

    select_decomp_table().pop(torch.ops.leaky_ext.forward.default, None)
    assert inductor.register()
    assert inductor.DECOMPOSITIONS.items() <= select_decomp_table().items()


REVISION_CODE = """
import sys, torch, leaky_ext
from torch._dynamo.utils import counters
from leaky_ext.operators import compiled
compiled.REVISION += int(sys.argv[1])
x = torch.randn(5, requires_grad=True)
torch.compile(leaky_ext.straight_through_relu)(x, 0.1).sum().backward()
print(counters["aot_autograd"]["autograd_cache_hit"], counters["aot_autograd"]["autograd_cache_miss"])
"""


@pytest.mark.slow
def test_a_new_revision_is_not_served_from_the_cache_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("TORCHINDUCTOR_AUTOGRAD_CACHE", "1")
    monkeypatch.delenv("TORCHINDUCTOR_FORCE_DISABLE_CACHES", raising=False)
    seen = []
    for revision in ("0", "0", "1"):
        run = subprocess.run(
            [sys.executable, "-c", REVISION_CODE, revision], capture_output=True, text=True, timeout=600
        )
        assert run.returncode == 0, run.stderr
        seen.append(run.stdout.split()[-2:])
    assert seen == [["0", "1"], ["1", "0"], ["0", "1"]]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_compiled_straight_through_relu_writes_the_sign_of_x(dtype: torch.dtype) -> None:
    inf, nan, tiny = float("inf"), float("nan"), torch.finfo(dtype).smallest_normal / 2
    x = torch.tensor([-1.0, -0.0, 0.0, 1.0, inf, -inf, -tiny, tiny, nan, -nan] * 4, dtype=dtype, requires_grad=True)

    def call(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = leaky_ext.straight_through_relu(x, 0.5)
        return y, torch.where(x > 0.5, 0.0, y.detach())  # a zero of the other sign in the same graph

    y, _ = torch.compile(call)(x)
    (grad,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(y, leaky_ext.straight_through_relu(x, 0.5), rtol=0, atol=0, equal_nan=True)
    negative = ~(x >= 0)
    assert torch.equal(torch.signbit(y)[~x.isnan()], negative[~x.isnan()])
    assert torch.equal(grad, torch.where(negative, 0.5, 1.0).to(dtype))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("alpha", [[0.25], [-0.25], [0.25, -0.5, 1e-3, 2.0]])
def test_compiled_save_output_rebuilds_x(dtype: torch.dtype, alpha: list[float]) -> None:
    def gradients(save: str) -> tuple[torch.Tensor, ...]:
        y = torch.compile(leaky_ext.learnable_leaky_relu)(x, slopes, save=save)
        return torch.autograd.grad((y * torch.linspace(-1, 1, y.numel()).to(y).reshape(y.shape)).sum(), (x, slopes))

    x = torch.randn(3, 4, 50, dtype=dtype).requires_grad_()
    slopes = torch.tensor(alpha, requires_grad=True)
    (grad_x, grad_alpha), (expected_x, expected_alpha) = gradients("output"), gradients("input")
    assert torch.equal(grad_x, expected_x)
    tolerance = {torch.float16: 5e-3, torch.bfloat16: 2e-2}.get(dtype, 1e-5)
    torch.testing.assert_close(grad_alpha, expected_alpha, rtol=tolerance, atol=tolerance)
