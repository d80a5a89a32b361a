"""straight_through(x_forward, x_backward): values, gradients, transforms and errors."""

from __future__ import annotations

import pytest
import torch
from samples import away_from_zero
from torch import Tensor, func

from leaky_ext import straight_through


class TestStraightThrough:
    @pytest.mark.parametrize("learned", [False, True])
    def test_the_result_may_be_changed_in_place(self, learned: bool) -> None:
        forward, backward = torch.randn(3, 4), torch.randn(4, requires_grad=True)
        before = forward.clone()
        with torch.set_grad_enabled(learned):
            y = straight_through(forward, backward)
            y *= 2
        assert torch.equal(forward, before) and torch.equal(y, 2 * before)
        if not learned:
            return
        grad = torch.randn(3, 4)
        y.backward(grad / 2)
        assert torch.equal(backward.grad, grad.sum(0))

    def test_gradient_reaches_x_backward_alone(self) -> None:
        forward, backward = torch.randn(3, requires_grad=True), torch.randn(3, requires_grad=True)
        straight_through(forward, backward).sum().backward()
        assert forward.grad is None
        assert not straight_through(forward, backward.detach()).requires_grad
        with torch.no_grad():
            assert not straight_through(forward, backward).requires_grad

    @pytest.mark.parametrize("compiled", [False, True])
    def test_infinities_nan_and_dtypes(self, compiled: bool) -> None:
        inf, nan = float("inf"), float("nan")
        forward = torch.tensor([1.0, -inf, inf, nan, 0.0], dtype=torch.bfloat16)
        backward = torch.tensor([inf, -inf, nan, 2.0, -inf], requires_grad=True)
        f = torch.compile(straight_through, fullgraph=True) if compiled else straight_through
        y = f(forward, backward)
        torch.testing.assert_close(y.detach(), forward, rtol=0, atol=0, equal_nan=True)
        y.backward(torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0], dtype=torch.bfloat16))
        assert backward.grad.tolist() == [1.0, 2.0, 3.0, 4.0, 5.0] and backward.grad.dtype == torch.float32

    @pytest.mark.parametrize("backend", [None, "aot_eager"])
    @pytest.mark.parametrize("transform", ["grad", "jvp", "jacrev", "jacfwd", "hessian", "vmap", "vmap of grad"])
    def test_transforms(self, transform: str, backend: str | None) -> None:
        """sign(x) gets the derivatives of tanh(x), of every order."""
        x = away_from_zero(4)

        def f(x: Tensor) -> Tensor:
            return straight_through(x.sign(), x.tanh())

        first = 1 - x.tanh() ** 2
        run, expected = {
            "grad": (func.grad(lambda x: f(x).sum()), first),
            "jvp": (lambda x: func.jvp(f, (x,), (x,))[1], first * x),
            "jacrev": (func.jacrev(f), first.diag()),
            "jacfwd": (func.jacfwd(f), first.diag()),
            "hessian": (func.hessian(lambda x: f(x).sum()), (-2 * x.tanh() * first).diag()),
            "vmap": (func.vmap(f), x.sign()),
            "vmap of grad": (func.vmap(func.grad(f)), first),
        }[transform]
        actual = run(x) if backend is None else torch.compile(lambda x: run(x), fullgraph=True, backend=backend)(x)
        torch.testing.assert_close(actual, expected)

    def test_create_graph(self) -> None:
        x = away_from_zero(4).requires_grad_()
        (grad,) = torch.autograd.grad(straight_through(x.sign(), x.tanh()).sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(grad.sum(), x)
        torch.testing.assert_close(second, -2 * x.tanh() * (1 - x.tanh() ** 2))

    @pytest.mark.parametrize("batched", [(0, None), (None, 0)])
    def test_vmap_over_one(self, batched: tuple[int | None, int | None]) -> None:
        a, b = (torch.randn(3, 4) if dim == 0 else torch.randn(4) for dim in batched)
        assert torch.equal(func.vmap(straight_through, batched)(a, b), a.expand(3, 4))

    @pytest.mark.parametrize("compiled", [False, True])
    def test_misuse(self, compiled: bool) -> None:
        f = torch.compile(straight_through, backend="eager") if compiled else straight_through
        x = torch.ones(3, 4)
        with pytest.raises(ValueError, match=r"\[3\].*\[3, 4\]"):
            f(x, torch.ones(3, requires_grad=True))
        with pytest.raises(ValueError, match=r"\[2, 3, 4\].*\[3, 4\]"):
            f(x, torch.ones(2, 3, 4))
        with pytest.raises(TypeError, match="int64"):
            f(x.long(), x)
        with pytest.raises(RuntimeError, match="meta"):
            f(x, x.to("meta"))
