"""The matrix: every mode, eager and compiled, for both functions and every kind of slope.

Each cell is compared in float64 with the formulas that people write by hand (torch.where, and the detach pattern), run
eagerly in the same mode. These share no code with leaky_ext. Inductor takes minutes, so only slow tests use it, except
for one cell. `pytest tests/test_modes.py --write-modes docs/modes.md` writes the table.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, func
from torch.autograd import forward_ad as fwad
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

import leaky_ext

Function = Callable[[Tensor, Any], Tensor]
# What PyTorch itself says of a compiled function.
NO_DOUBLE_BACKWARD = "does not currently support double backward|requires create_graph=False"


def where(x: Tensor, alpha: Tensor | float) -> Tensor:
    return torch.where(x >= 0, x, alpha * x)


def detach(x: Tensor, alpha: Tensor | float) -> Tensor:
    return where(x, alpha) + (x.clamp(min=0) - where(x, alpha)).detach()


def learnable_leaky_relu(x: Tensor, alpha: Tensor | float) -> Tensor:
    return leaky_ext.learnable_leaky_relu(x, alpha, channel_dim=-1)


def straight_through_relu(x: Tensor, alpha: Tensor | float) -> Tensor:
    return leaky_ext.straight_through_relu(x, alpha, channel_dim=-1)


FUNCTIONS = {
    "learnable_leaky_relu": (learnable_leaky_relu, where),
    "straight_through_relu": (straight_through_relu, detach),
}
ALPHAS: dict[str, Callable[[], Any]] = {
    "float": lambda: 0.3,
    "frozen": lambda: torch.tensor(0.3, dtype=torch.float64),
    "learned": lambda: torch.tensor(0.3, dtype=torch.float64, requires_grad=True),
    "per-channel": lambda: torch.tensor([0.3, -0.2, 0.0, 1.5], dtype=torch.float64, requires_grad=True),
}
X = torch.tensor(
    [
        [[-1.5, 2.0, -0.5, 3.0], [0.0, -0.0, -2.5, -0.1]],
        [[0.7, -1.1, -0.3, -4.0], [1.3, -0.6, 2.2, -0.9]],
        [[-0.2, -0.8, 1.9, 0.4], [-3.1, 0.0, -1.7, 0.6]],
    ],
    dtype=torch.float64,
)
WEIGHT = torch.linspace(-1, 2, 8, dtype=torch.float64).reshape(2, 4)


def loss(y: Tensor) -> Tensor:
    return (WEIGHT.to(y.dtype) * (y**3 + y**2 - y)).sum()


def learned(alpha: Any) -> bool:
    return isinstance(alpha, Tensor) and alpha.requires_grad


# A mode gets a function, x and alpha, and returns tensors. `outside` modes call a function that is already compiled,
# the others are compiled as a whole.
MODES: dict[str, tuple[bool, Callable[..., Any]]] = {}


def mode(name: str, outside: bool = False) -> Callable:
    def register(run: Callable) -> Callable:
        MODES[name] = outside, run
        return run

    return register


def leaves(x: Tensor, alpha: Any) -> tuple[Tensor, Any, tuple[Tensor, ...]]:
    x = x.detach().clone().requires_grad_()
    if not learned(alpha):
        return x, alpha, (x,)
    alpha = alpha.detach().clone().requires_grad_()
    return x, alpha, (x, alpha)


@mode("backward", outside=True)
def backward(f: Function, x: Tensor, alpha: Any) -> Any:
    x, alpha, inputs = leaves(x, alpha)
    y = f(x, alpha)
    return y, torch.autograd.grad(loss(y), inputs)


def create_graph(f: Function, x: Tensor, alpha: Any, order: int) -> Any:
    x, alpha, inputs = leaves(x, alpha)
    total = loss(f(x, alpha))
    for _ in range(order - 1):
        total = sum((grad**2).sum() for grad in torch.autograd.grad(total, inputs, create_graph=True))
    return torch.autograd.grad(total, inputs)


mode("create_graph", outside=True)(partial(create_graph, order=2))
mode("third order", outside=True)(partial(create_graph, order=3))


def pure(f: Function, alpha: Any) -> tuple[Callable, Callable[[Tensor, Any], tuple]]:
    """Returns f as a pure function of x and of a learned alpha, and the arguments."""
    if learned(alpha):
        return f, lambda x, alpha: (x, alpha.detach())
    return lambda x: f(x, alpha), lambda x, alpha: (x,)


def functional(name: str) -> Callable:
    def register(transform: Callable) -> Callable:
        def run(f: Function, x: Tensor, alpha: Any) -> Any:
            g, pick = pure(f, alpha)
            arguments = pick(x, alpha)
            return transform(g, tuple(range(len(arguments))), *arguments)

        mode(name)(run)
        return run

    return register


def scalar(g: Callable) -> Callable:
    return lambda *arguments: loss(g(*arguments))


def tangents(arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(torch.linspace(0.5, 1.5, t.numel(), dtype=t.dtype).reshape(t.shape) for t in arguments)


functional("func.grad")(lambda g, argnums, *args: func.grad(scalar(g), argnums)(*args))
functional("func.jacrev")(lambda g, argnums, *args: func.jacrev(g, argnums)(*args))
functional("func.jacfwd")(lambda g, argnums, *args: func.jacfwd(g, argnums)(*args))
functional("func.hessian")(lambda g, argnums, *args: func.hessian(scalar(g), argnums)(*args))
functional("func.jvp")(lambda g, argnums, *args: func.jvp(g, args, tangents(args)))


@functional("func.vjp")
def vjp(g: Callable, argnums: tuple[int, ...], *args: Tensor) -> Any:
    y, pull_back = func.vjp(g, *args)
    return y, pull_back(torch.ones_like(y))


@functional("grad of jvp")
def grad_of_jvp(g: Callable, argnums: tuple[int, ...], *args: Tensor) -> Any:
    return func.grad(lambda *args: func.jvp(scalar(g), args, tangents(args))[1], argnums)(*args)


@mode("vmap over x")
def vmap_x(f: Function, x: Tensor, alpha: Any) -> Tensor:
    return func.vmap(lambda x: f(x, alpha))(x)


def batch(alpha: Tensor) -> Tensor:
    return torch.stack([alpha.detach() * scale for scale in (1.0, -0.5, 2.0)])


@mode("vmap over alpha")
def vmap_alpha(f: Function, x: Tensor, alpha: Any) -> Tensor:
    return func.vmap(lambda alpha: f(x, alpha))(batch(alpha))


@mode("vmap over both")
def vmap_both(f: Function, x: Tensor, alpha: Any) -> Tensor:
    return func.vmap(f)(x, batch(alpha))


@functional("vmap of grad")
def vmap_grad(g: Callable, argnums: tuple[int, ...], *args: Tensor) -> Any:
    return func.vmap(func.grad(scalar(g), argnums), in_dims=(0, *[None] * (len(args) - 1)))(*args)


@functional("forward AD")
def forward_mode(g: Callable, argnums: tuple[int, ...], *args: Tensor) -> Any:
    with fwad.dual_level():
        return tuple(fwad.unpack_dual(g(*map(fwad.make_dual, args, tangents(args)))))


@mode("checkpoint", outside=True)
def checkpointed(f: Function, x: Tensor, alpha: Any) -> Any:
    return backward(lambda x, alpha: checkpoint(f, x, alpha, use_reentrant=False), x, alpha)


@mode("saved_tensors_hooks", outside=True)
def hooks(f: Function, x: Tensor, alpha: Any) -> Any:
    with saved_tensors_hooks(lambda t: t.clone(), lambda t: t):
        return backward(f, x, alpha)


@mode("autocast", outside=True)
def autocast(f: Function, x: Tensor, alpha: Any) -> Any:
    """Half-precision x with float32 slopes: each keeps its dtype, and so does its gradient."""
    x = x.bfloat16()
    if isinstance(alpha, Tensor):
        alpha = alpha.detach().float().requires_grad_(alpha.requires_grad)
    x, alpha, inputs = leaves(x, alpha)
    if f in (where, detach):  # what is expected: computed in float64, rounded once
        y = f(x.double(), alpha.double() if isinstance(alpha, Tensor) else alpha).bfloat16()
    else:
        with torch.autocast("cpu", dtype=torch.float16):
            y = f(x, alpha)
    return y, torch.autograd.grad(y.double().sum(), inputs)


@mode("inference_mode", outside=True)
def inference(f: Function, x: Tensor, alpha: Any) -> Tensor:
    with torch.inference_mode():
        y = f(x, alpha)
        assert y.is_inference()
    return y


def is_slow(name: str, backend: str | None, alpha: str) -> bool:
    if backend == "inductor":
        return (name, alpha) != ("backward", "per-channel")
    return backend == "aot_eager" and alpha in ("frozen", "learned")


CELLS = [
    pytest.param(name, backend, function, alpha, marks=[pytest.mark.slow] * is_slow(name, backend, alpha))
    for name, backend, function, alpha in product(MODES, (None, "aot_eager", "inductor"), FUNCTIONS, ALPHAS)
]


@pytest.mark.parametrize("name, backend, function, alpha", CELLS)
def test_mode(name: str, backend: str | None, function: str, alpha: str, modes_table: dict) -> None:
    columns = [f"{function}, {how}" for how in ("eager", "compiled") for function in FUNCTIONS]
    row = modes_table.setdefault(name, {column: set() for column in columns})
    outcomes = row[f"{function}, {'compiled' if backend else 'eager'}"]
    slope = ALPHAS[alpha]()
    if alpha == "float" and name in ("vmap over alpha", "vmap over both"):
        return  # a float has no batch
    ours, by_hand = FUNCTIONS[function]
    outside, run = MODES[name]
    torch._dynamo.reset()
    compiler = partial(torch.compile, fullgraph=True, backend=backend)
    if backend and name in ("create_graph", "third order"):
        with pytest.raises(RuntimeError, match=NO_DOUBLE_BACKWARD):
            run(compiler(ours), X, slope)
        outcomes.add("raises: PyTorch has no compiled double backward")
        return
    expected = run(by_hand, X, slope)
    if backend is None:
        actual = run(ours, X, slope)
    elif outside:
        actual = run(compiler(ours), X, slope)
    else:
        try:
            actual = compiler(lambda x: run(ours, x, slope))(X)
        except torch._dynamo.exc.UserError:  # torch 2.11 cannot compile jacfwd for a 0-d slope, whatever the function
            with pytest.raises(torch._dynamo.exc.UserError):
                compiler(lambda x: run(by_hand, x, slope))(X)
            outcomes.add("raises: PyTorch cannot compile this")
            return
    tolerance = 1e-6 if name == "autocast" else 1e-12
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)
    outcomes.add("right")
