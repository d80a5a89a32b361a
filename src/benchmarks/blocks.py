"""Real blocks around the activation, forward and backward: a fast operator that slows the model would show here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .implementations import FIXED_SLOPE, LEARNABLE, Implementation
from .verify import check_module

if TYPE_CHECKING:
    from .cases import Case

Factory = Callable[[], nn.Module]
INITIAL_SLOPE = 0.25


class Activation(nn.Module):
    """An implementation as a layer, with a slope of its own where it learns one."""

    def __init__(self, implementation: Implementation, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function
        shape = () if implementation.alpha == "[]" else (1,)
        self.alpha = nn.Parameter(torch.full(shape, INITIAL_SLOPE)) if implementation.learns else FIXED_SLOPE

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, self.alpha)


class Residual(nn.Module):
    """ResNet's basic block."""

    def __init__(self, activation: Factory, channels: int = 64) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.act1 = activation()
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.act2 = activation()

    def forward(self, x: Tensor) -> Tensor:
        y = self.act1(self.norm1(self.conv1(x)))
        return self.act2(self.norm2(self.conv2(y)) + x)


class UNetLevel(nn.Module):
    """One level of a UNet: two convolutions, half the resolution and back, the skip connection, one convolution."""

    def __init__(self, activation: Factory, channels: int = 32) -> None:
        super().__init__()

        def unit(before: int, after: int) -> nn.Sequential:
            conv = nn.Conv2d(before, after, 3, padding=1, bias=False)
            return nn.Sequential(conv, nn.InstanceNorm2d(after, affine=True), activation())

        self.down = nn.Sequential(unit(channels, channels), unit(channels, channels))
        self.bottom = unit(channels, 2 * channels)
        self.up = nn.ConvTranspose2d(2 * channels, channels, 2, stride=2)
        self.join = unit(2 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        skip = self.down(x)
        return self.join(torch.cat([skip, self.up(self.bottom(F.max_pool2d(skip, 2)))], dim=1))


class MLP(nn.Module):
    """The feed-forward part of a transformer layer, pre-norm, with its residual."""

    def __init__(self, activation: Factory, width: int = 256) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, 4 * width)
        self.act = activation()
        self.contract = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.contract(self.act(self.expand(self.norm(x))))


@dataclass(frozen=True)
class Block:
    build: Callable[[Factory], nn.Module]
    title: str
    shape: tuple[int, ...]
    activations: int  # elements that go through the activation


BLOCKS = {
    "residual": Block(Residual, "ResNet basic block, (8, 64, 32, 32)", (8, 64, 32, 32), 2 * 8 * 64 * 32 * 32),
    "unet": Block(UNetLevel, "UNet level, (4, 32, 64, 64)", (4, 32, 64, 64), 4 * 32 * 64 * 64 * 7 // 2),
    "mlp": Block(MLP, "transformer MLP, (8, 128, 256)", (8, 128, 256), 8 * 128 * 1024),
}


@dataclass
class BoundBlock:
    implementation: Implementation
    module: nn.Module
    forward: Callable[[Tensor], Tensor]
    names: list[str]

    def __call__(self, x: Tensor) -> Tensor:
        return self.forward(x)

    def inputs(self, x: Tensor) -> tuple[Tensor, ...]:
        return (x, *self.module.parameters())


class BlockProblem:
    """A block in a row. Has the interface of OperatorProblem."""

    def __init__(self, case: Case, seed: int = 0) -> None:
        self.case, self.seed, self.block = case, seed, BLOCKS[case.block]
        generator = torch.Generator(case.device).manual_seed(seed)
        options: dict[str, Any] = {"generator": generator, "device": case.device, "dtype": getattr(torch, case.dtype)}
        self.x = torch.randn(self.block.shape, requires_grad=True, **options)
        self.grad = torch.randn(self.block.shape, **options)

    def build(self, implementation: Implementation, function: Callable[..., Tensor]) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)  # the same weights for all
            module = self.block.build(lambda: Activation(implementation, function))
        return module.to(self.x.device, self.x.dtype)

    def bind(self, implementation: Implementation) -> BoundBlock:
        module = self.build(implementation, implementation.function)
        forward = torch.compile(module, fullgraph=True, dynamic=False) if implementation.compiled else module
        return BoundBlock(implementation, module, forward, ["y", "grad_x", *dict(module.named_parameters())])

    def check(self, bound: BoundBlock) -> str | None:
        reference = self.build(bound.implementation, self.formula(bound.implementation)).double()

        def run(forward: Callable[[Tensor], Tensor], module: nn.Module, x: Tensor) -> list[Tensor]:
            y = forward(x)
            return [y, *torch.autograd.grad(y, (x, *module.parameters()), self.grad.to(x.dtype))]

        x64 = self.x.detach().double().requires_grad_()
        return check_module(
            lambda: run(bound, bound.module, self.x),
            lambda: run(reference, reference, x64),
            bound.names,
            self.case.device,
        )

    def formula(self, implementation: Implementation) -> Callable[..., Tensor]:
        def activation(x: Tensor, alpha: Any) -> Tensor:
            negative = (alpha if implementation.slope is None else implementation.slope) * x
            if self.case.operator != LEARNABLE:
                negative = negative - negative.detach()
            return torch.where(x >= 0, x, negative)

        return activation

    def calls(self, bound: BoundBlock, direction: str) -> list[Callable[[], Any]]:
        inputs = bound.inputs(self.x)
        return [lambda: torch.autograd.grad(bound(self.x), inputs, self.grad)]

    def yardsticks(self) -> dict[str, list[Callable[[], Any]]]:
        return {}

    def bytes_to_move(self) -> None:
        """A block has no floor that says anything."""
