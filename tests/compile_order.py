"""Compiles every function and module by Inductor and prints what Inductor was given and what is kept, as JSON.

`python compile_order.py second` compiles something else first: Inductor copies its table of decompositions then.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional as F

import leaky_ext


class Call(nn.Module):
    def __init__(self, function: Callable[..., Tensor], alpha: Tensor | None = None) -> None:
        super().__init__()
        self.function, self.alpha = function, None if alpha is None else nn.Parameter(alpha)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x) if self.alpha is None else self.function(x, self.alpha)


def detached(x: Tensor) -> Tensor:
    return x.tanh() + (x.sign() - x.tanh()).detach()


def slopes(value: float = 0.25) -> Tensor:
    return torch.full((8,), value)


def prelu() -> nn.Module:
    return nn.PReLU(8)


# What is compiled, and PyTorch's own activation of the same kind.
CASES: dict[str, tuple[Callable[[], nn.Module], Callable[[], nn.Module]]] = {
    "learned": (lambda: Call(leaky_ext.learnable_leaky_relu, slopes()), prelu),
    "learned, save=output": (
        lambda: Call(lambda x, a: leaky_ext.learnable_leaky_relu(x, a, save="output"), slopes()),
        prelu,
    ),
    "learned, in place": (lambda: Call(leaky_ext.learnable_leaky_relu_, slopes()), prelu),
    "fixed": (lambda: Call(lambda x: leaky_ext.learnable_leaky_relu(x, 0.1)), lambda: nn.LeakyReLU(0.1)),
    "straight-through": (lambda: Call(lambda x: leaky_ext.straight_through_relu(x, 0.1)), nn.ReLU),
    "straight-through, in place": (lambda: Call(lambda x: leaky_ext.straight_through_relu_(x, 0.1)), nn.ReLU),
    "straight-through, learned": (lambda: Call(leaky_ext.straight_through_relu, slopes()), prelu),
    "straight_through": (
        lambda: Call(lambda x: leaky_ext.straight_through(x.sign(), x.tanh())),
        lambda: Call(detached),
    ),
    "LearnableLeakyReLU": (lambda: leaky_ext.LearnableLeakyReLU(8), prelu),
    "LearnableLeakyReLU, save=output": (
        lambda: leaky_ext.LearnableLeakyReLU(8, save="output"),
        prelu,
    ),
    "LearnableLeakyReLU, bounds": (
        lambda: leaky_ext.LearnableLeakyReLU(8, alpha_bounds=(0.0, 1.0)),
        prelu,
    ),
    "PReLU": (lambda: leaky_ext.PReLU(8), prelu),
    "StraightThroughReLU": (lambda: leaky_ext.StraightThroughReLU(0.1), nn.ReLU),
    "StraightThroughReLU, learnable": (
        lambda: leaky_ext.StraightThroughReLU(0.1, learnable=True, num_parameters=8),
        prelu,
    ),
}


def network(activation: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), activation, nn.Conv2d(8, 8, 3), nn.Flatten())


def kept(model: nn.Module, x: Tensor) -> tuple[int, Tensor]:
    """Bytes that the graph of a call keeps, and the call's output."""
    saved: dict[int, int] = {}

    def pack(t: Tensor) -> Tensor:
        saved[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with saved_tensors_hooks(pack, lambda t: t):
        y = model(x)
    return sum(saved.values()), y


def compiled(model: nn.Module, x: Tensor) -> tuple[int, list[str]]:
    """Bytes kept by the compiled model, and the leaky_ext operators in the graphs that Inductor was given."""
    torch._dynamo.reset()
    left: list[str] = []

    def look(graph: torch.fx.Graph) -> None:
        left.extend(str(node.target) for node in graph.nodes if "leaky_ext" in str(node.target))

    with torch._inductor.config.patch(post_grad_custom_pre_pass=look):
        run: Any = torch.compile(model, fullgraph=True)
        run(x).sum().backward()
        return kept(run, x)[0], left


if __name__ == "__main__":
    torch.compiler.config.force_disable_caches = True
    torch.manual_seed(0)
    if sys.argv[1] == "second":
        torch.compile(lambda x: F.relu(x.sin()))(torch.randn(3, requires_grad=True)).sum().backward()
    x = torch.randn(4, 3, 32, 32)
    ours = {name: compiled(network(make()), x) for name, (make, _) in CASES.items()}  # before PyTorch's own
    theirs = {make: compiled(network(make()), x)[0] for make in {make for _, make in CASES.values()}}
    results = {
        name: {"kept": kept_by_us, "PyTorch's": theirs[CASES[name][1]], "left": left}
        for name, (kept_by_us, left) in ours.items()
    }
    print(json.dumps(results))
