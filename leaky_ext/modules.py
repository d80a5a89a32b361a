"""The activations as modules: LearnableLeakyReLU and StraightThroughReLU."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Proxy, Tracer

from . import functional as F

Init = float | Callable[[Tensor], Any]
Bounds = tuple[float, float]

_PRELU = nn.PReLU(device="meta")
"""The module that tracers are asked about."""


class _Slope(nn.Module):
    """The base of both modules: a slope `alpha`, a float or a 1-D parameter, and its bounds."""

    alpha: nn.Parameter | float
    alpha_bounds: Bounds | None

    def __init__(self, channel_dim: int, inplace: bool, alpha_bounds: Bounds | None) -> None:
        super().__init__()
        if alpha_bounds is not None:
            is_pair = isinstance(alpha_bounds, Sequence) and len(alpha_bounds) == 2
            if not (is_pair and alpha_bounds[0] <= alpha_bounds[1]):
                raise ValueError(f"alpha_bounds must be (low, high) with low <= high, got {alpha_bounds}")
            alpha_bounds = (float(alpha_bounds[0]), float(alpha_bounds[1]))
        self.channel_dim = channel_dim
        self.inplace = inplace
        self.alpha_bounds = alpha_bounds

    def _new_alpha(self, num_parameters: int, device: Any, dtype: torch.dtype | None) -> None:
        if num_parameters < 1:
            raise ValueError(f"num_parameters must be at least 1, got {num_parameters}")
        self.alpha = nn.Parameter(torch.empty(num_parameters, device=device, dtype=dtype))

    def project_(self) -> None:
        """Write `alpha`, clamped to `alpha_bounds`, back into the parameter. Never waits for the device."""
        if self.alpha_bounds is not None and isinstance(self.alpha, Tensor):
            # .data: autograd does not record the write, and graphs that have saved alpha can still run backward: the
            # value that they saved was inside the bounds already.
            self.alpha.data.clamp_(*self.alpha_bounds)

    def slope(self) -> Tensor | float:
        """The slope that forward uses: `alpha`, clamped to `alpha_bounds` where there are any; the gradient passes."""
        alpha = self.alpha
        if self.alpha_bounds is None or isinstance(alpha, float):
            return alpha
        # Under torch.func.functional_call alpha belongs to the caller: forward clamps it, but does not write to it.
        if self.training and isinstance(alpha, nn.Parameter):
            self.project_()
        return F.straight_through(alpha.clamp(*self.alpha_bounds), alpha)

    def leaf(self, input: Any) -> Proxy | None:
        """While torch.fx traces: the call of this module as one node, wherever nn.PReLU would be one node."""
        tracer = input.tracer
        path = tracer.path_of_module(self) if isinstance(tracer, Tracer) else ""
        if path and tracer.is_leaf_module(_PRELU, path):
            return tracer.create_proxy("call_module", path, (input,), {})
        return None


class LearnableLeakyReLU(_Slope):
    r"""Leaky ReLU whose negative slope is trained: ``x`` where ``x >= 0``, else ``alpha * x``.

    Args:
        num_parameters: number of slopes: 1 for all elements, or C, the size of the input's `channel_dim`.
        init: the first value of every slope, or a function like those of :mod:`torch.nn.init`, which fills a tensor in
            place, for example ``functools.partial(nn.init.uniform_, a=0.0, b=0.3)``.
        channel_dim: the dimension that slopes go with; negative counts from the end. Without effect for one slope.
        save: what is kept for backward: ``"input"``, or ``"output"``, which the next layer often keeps anyway. With
            ``"output"`` the input is rebuilt as ``output / alpha``, so no slope may be exactly 0.
        inplace: overwrite the input. The output is then kept for backward, and no slope may be exactly 0. Neither this
            nor ``save="output"`` works with a bound that is 0.
        device, dtype: of `alpha`; independent of the input's dtype.
        alpha_bounds: ``(low, high)``, or None. Every forward uses `alpha` clamped to these bounds, and in training mode
            first writes the clamped values back: projected gradient descent, with the projection at the start of the
            next forward. It is one element-wise operation on the device: the host does not wait, any optimizer works,
            and ``torch.compile`` traces it. `alpha` stays an ordinary parameter under its own name. Where the module's
            parameter is a temporary copy (FSDP2's `fully_shard`), let the optimizer project the stored one:
            ``optimizer.register_step_post_hook(lambda *_: module.project_())``.

    Attributes:
        alpha: the slopes, a parameter of shape ``[num_parameters]``: never 0-D, so FSDP takes it.

    Shape:
        - Input: any floating shape; with more than one slope, ``input.shape[channel_dim] == num_parameters``.
        - Output: the input's shape and dtype.

    Give slopes no weight decay: :func:`leaky_ext.parameter_groups`.
    """

    alpha: nn.Parameter

    def __init__(
        self,
        num_parameters: int = 1,
        init: Init = 0.01,
        channel_dim: int = 1,
        save: str = "input",
        inplace: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        alpha_bounds: Bounds | None = None,
    ) -> None:
        super().__init__(channel_dim, inplace, alpha_bounds)
        if save not in ("input", "output"):
            raise ValueError(f"save must be 'input' or 'output', got {save!r}")
        if alpha_bounds is not None and 0 in alpha_bounds and (inplace or save == "output"):
            raise ValueError(
                f"alpha_bounds={alpha_bounds} makes slopes exactly 0, from which save='output' and inplace=True cannot "
                "rebuild the input: use save='input', or a bound other than 0"
            )
        self.num_parameters = num_parameters
        self.init = init
        self.save = save
        self._new_alpha(num_parameters, device, dtype)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set the slopes to `init` again."""
        with torch.no_grad():
            if callable(self.init):
                self.init(self.alpha)
            elif isinstance(self.init, str):
                raise TypeError(f"init must be a float or a function that fills a tensor, got {self.init!r}")
            else:
                self.alpha.fill_(self.init)

    def forward(self, input: Tensor) -> Tensor:
        if isinstance(input, Proxy) and (call := self.leaf(input)) is not None:
            return call
        if self.inplace:
            return F.learnable_leaky_relu_(input, self.slope(), channel_dim=self.channel_dim)
        return F.learnable_leaky_relu(input, self.slope(), channel_dim=self.channel_dim, save=self.save)

    def extra_repr(self) -> str:
        init = getattr(self.init, "__name__", self.init) if callable(self.init) else self.init
        shown = [f"num_parameters={self.num_parameters}, init={init}"]
        if self.num_parameters > 1:
            shown.append(f"channel_dim={self.channel_dim}")
        if self.save != "input":
            shown.append(f"save={self.save!r}")
        return ", ".join(shown + _shown(self))


class StraightThroughReLU(_Slope):
    r"""ReLU in the forward pass, the gradient of leaky ReLU in the backward pass: no unit stops learning.

    Args:
        alpha: the slope of the gradient where the input is negative.
        learnable: make `alpha` a parameter. Its gradient is leaky ReLU's, the surrogate's: ``sum(grad * x)`` over the
            negative elements.
        num_parameters, channel_dim: as in :class:`LearnableLeakyReLU`; more than one slope only if `learnable`.
        inplace: overwrite the input. Does not work with a learned `alpha`, whose gradient needs the input.
        device, dtype: of a learned `alpha`.
        alpha_bounds: ``(low, high)`` of a learned `alpha`, kept as in :class:`LearnableLeakyReLU`.

    Attributes:
        alpha: a float; if `learnable`, a parameter of shape ``[num_parameters]``.

    Shape:
        - Input: any floating shape; with more than one slope, ``input.shape[channel_dim] == num_parameters``.
        - Output: the input's shape and dtype.
    """

    def __init__(
        self,
        alpha: float = 0.01,
        learnable: bool = False,
        num_parameters: int = 1,
        channel_dim: int = 1,
        inplace: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        alpha_bounds: Bounds | None = None,
    ) -> None:
        super().__init__(channel_dim, inplace, alpha_bounds)
        if learnable and inplace:
            raise ValueError("inplace=True does not work with learnable=True: the gradient of alpha needs the input")
        if not learnable and num_parameters != 1:
            raise ValueError(f"num_parameters must be 1 unless learnable=True, got {num_parameters}")
        if not learnable and alpha_bounds is not None:
            raise ValueError(f"alpha_bounds={alpha_bounds} needs learnable=True")
        self.init = float(alpha)
        self.learnable = learnable
        self.num_parameters = num_parameters
        if learnable:
            self._new_alpha(num_parameters, device, dtype)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set the slope to its first value again."""
        if self.learnable:
            assert isinstance(self.alpha, Tensor)
            nn.init.constant_(self.alpha, self.init)
        else:
            self.alpha = self.init

    def forward(self, input: Tensor) -> Tensor:
        if isinstance(input, Proxy) and (call := self.leaf(input)) is not None:
            return call
        if self.inplace:
            return F.straight_through_relu_(input, self.slope(), channel_dim=self.channel_dim)
        return F.straight_through_relu(input, self.slope(), channel_dim=self.channel_dim)

    def extra_repr(self) -> str:
        shown = [f"alpha={self.init}"]
        if self.learnable:
            shown.append(f"learnable=True, num_parameters={self.num_parameters}")
        if self.num_parameters > 1:
            shown.append(f"channel_dim={self.channel_dim}")
        return ", ".join(shown + _shown(self))


def _shown(module: _Slope) -> list[str]:
    shown = ["inplace=True"] if module.inplace else []
    return shown + ([f"alpha_bounds={module.alpha_bounds}"] if module.alpha_bounds else [])
