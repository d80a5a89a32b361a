"""The activations as modules: PReLU, LearnableLeakyReLU and StraightThroughReLU."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.compiler import is_dynamo_compiling
from torch.fx import Proxy, Tracer

from . import functional as F
from ._C import module_activation
from .enums import LEAKY_RELU, LEAKY_RELU_SIGNED, RELU, one_of
from .operators.bounds import clamp_slope

Bounds = tuple[float, float]

# What a module computes, by `save`. The native call looks up `formulas` in the class itself and so declines a subclass,
# which may override any attribute.
_LEAKY = {"input": LEAKY_RELU, "output": LEAKY_RELU_SIGNED}
_RELU = {"input": RELU}
_PRELU = nn.PReLU(device="meta")  # an argument of tracer.is_leaf_module


def check_module(model: Any) -> None:
    """Raise TypeError if `model` is not a module."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"leaky_ext: model must be a torch.nn.Module, got {type(model).__name__}")


class Slope(nn.Module):
    """The base class of the modules: holds the slope (a 1-D parameter or a float) and computes leaky ReLU."""

    alpha: Any
    init: Any
    slope_name = "alpha"
    learnable = True  # whether the slope is a parameter
    loads_without = False  # whether a state_dict may lack the slope, because it was saved before `convert` added one
    save = "input"

    def __init__(
        self,
        num_parameters: int = 1,
        init: float | Callable[[Tensor], Any] = 0.01,
        channel_dim: int = 1,
        save: str = "input",
        inplace: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        alpha_bounds: Bounds | None = None,
    ) -> None:
        nn.Module.__init__(self)  # not super(): nn.PReLU would create a parameter
        if num_parameters < 1:
            raise ValueError(f"num_parameters must be at least 1, got {num_parameters}")
        if isinstance(init, str):
            raise TypeError(f"init must be a float or a function that fills a tensor, got {init!r}")
        if save not in _LEAKY:
            raise ValueError(f"save must be {one_of(map(repr, _LEAKY))}, got {save!r}")
        if (b := alpha_bounds) is not None:
            if not (isinstance(b, Sequence) and len(b) == 2 and b[0] <= b[1]):
                raise ValueError(f"alpha_bounds must be (low, high) with low <= high, got {b}")
            alpha_bounds = (float(b[0]), float(b[1]))
            if 0 in alpha_bounds and (inplace or save == "output"):
                what = f"alpha_bounds={alpha_bounds} makes slopes exactly 0, from which save='output' and inplace=True"
                raise ValueError(f"{what} cannot rebuild the input: use save='input', or a bound other than 0")
        self.num_parameters, self.init, self.channel_dim = num_parameters, init, channel_dim
        self.save, self.inplace, self.alpha_bounds = save, inplace, alpha_bounds
        if self.learnable:
            setattr(self, self.slope_name, nn.Parameter(torch.empty(num_parameters, device=device, dtype=dtype)))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Reset the slopes to `init`."""
        if not self.learnable:
            self.alpha = float(self.init)
        elif callable(self.init):
            self.init(getattr(self, self.slope_name))
        else:
            getattr(self, self.slope_name).fill_(self.init)

    @torch.no_grad()
    def project_(self) -> None:
        """Clamp the parameter to `alpha_bounds` in place. Does not wait for the device.

        forward never writes to the parameter. To keep it inside the bounds exactly, call this after each optimizer
        step: ``optimizer.register_step_post_hook(lambda *_: module.project_())``.

        Raises:
            RuntimeError: the slope is computed from other parameters (parametrized, pruned).
        """
        if self.alpha_bounds is not None:
            if (slope := self._parameters.get(self.slope_name)) is None:
                raise RuntimeError(f"{self}: cannot project {self.slope_name}, computed from other parameters")
            slope.clamp_(*self.alpha_bounds)

    def slope(self) -> Tensor | float:
        """Return the slope that forward uses: clamped to `alpha_bounds`, if given. The parameter does not change."""
        slope = getattr(self, self.slope_name)
        if self.alpha_bounds is None or isinstance(slope, (int, float)):
            return slope
        return clamp_slope(slope, *self.alpha_bounds)

    def forward(self, input: Tensor) -> Tensor:
        if not is_dynamo_compiling():
            y = module_activation(input, self)
            if y is not NotImplemented:
                return y
        if isinstance(input, Proxy) and (call := self._leaf(input)) is not None:
            return call
        return self._activation(input)

    def _activation(self, input: Tensor) -> Tensor:
        if self.inplace:
            return F.learnable_leaky_relu_(input, self.slope(), channel_dim=self.channel_dim)
        return F.learnable_leaky_relu(input, self.slope(), channel_dim=self.channel_dim, save=self.save)

    def _leaf(self, input: Any) -> Proxy | None:
        """Return a call_module node if the tracer of `input` would record nn.PReLU as one node, else None."""
        tracer = input.tracer
        path = tracer.path_of_module(self) if isinstance(tracer, Tracer) else ""
        is_leaf = path and tracer.is_leaf_module(_PRELU, path)
        return tracer.create_proxy("call_module", path, (input,), {}) if is_leaf else None

    def __prepare_scriptable__(self) -> Any:
        raise RuntimeError(f"torch.jit.script does not support {self}: call leaky_ext.revert first, or torch.jit.trace")

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Load the slope. It may have been saved under the name that another of these modules uses."""
        key, own = prefix + self.slope_name, self._parameters.get(self.slope_name)
        if own is not None and key not in state_dict:
            other = prefix + ("alpha" if self.slope_name == "weight" else "weight")
            if other in state_dict:
                state_dict[key] = state_dict.pop(other)
            elif self.loads_without and not own.is_meta:  # saved before `convert` gave the slope this name
                state_dict[key] = own.detach() if self.slope_name == "weight" else torch.full_like(own, self.init)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        straight, init = isinstance(self, StraightThroughReLU), getattr(self.init, "__name__", self.init)
        shown = {
            f"alpha={init if self.learnable else self.slope()}": straight,
            "learnable=True": straight and self.learnable,
            f"num_parameters={self.num_parameters}": self.learnable,
            f"init={init}": isinstance(self, LearnableLeakyReLU),
            f"channel_dim={self.channel_dim}": self.num_parameters > 1,
            f"save={self.save!r}": self.save != "input",
            "inplace=True": self.inplace,
            f"alpha_bounds={self.alpha_bounds}": self.alpha_bounds is not None,
        }
        return ", ".join(text for text, holds in shown.items() if holds)


class PReLU(Slope, nn.PReLU):
    r"""A subclass of :class:`torch.nn.PReLU` that computes :func:`leaky_ext.learnable_leaky_relu`.

    :func:`leaky_ext.convert` turns every :class:`torch.nn.PReLU` into this class. The parameter keeps its name, so
    checkpoints, optimizer states, sharding plans, rules by name and ``isinstance`` work as before.

    Args:
        num_parameters, init, device, dtype: as in :class:`torch.nn.PReLU`.
        channel_dim, save, inplace, alpha_bounds: as in :class:`LearnableLeakyReLU`.

    Attributes:
        weight: the slopes, a parameter of shape ``[num_parameters]``. A `state_dict` with the name `alpha` also loads.

    Input, output and errors are those of :class:`LearnableLeakyReLU`.
    """

    slope_name = "weight"
    formulas = _LEAKY

    def __init__(
        self,
        num_parameters: int = 1,
        init: float = 0.25,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        channel_dim: int = 1,
        save: str = "input",
        inplace: bool = False,
        alpha_bounds: Bounds | None = None,
    ) -> None:
        super().__init__(num_parameters, init, channel_dim, save, inplace, device, dtype, alpha_bounds=alpha_bounds)

    def _get_name(self) -> str:
        return "leaky_ext.PReLU" if type(self) is PReLU else super()._get_name()  # differs from the text of nn.PReLU


class LearnableLeakyReLU(Slope):
    r"""Leaky ReLU with a learned slope, ``x`` where ``x >= 0``, else ``alpha * x``: :func:`learnable_leaky_relu`.

    Args:
        num_parameters: the number of slopes: 1, or the size of the input in `channel_dim`.
        init: the initial value of every slope, or a function that fills a tensor in place, such as those of
            :mod:`torch.nn.init`: ``functools.partial(nn.init.uniform_, a=0.0, b=0.3)``. The module keeps the function,
            so a module with a lambda cannot be pickled; save its state_dict instead.
        channel_dim: the dimension that has one slope per index; negative values count from the end. Ignored for one
            slope.
        save: what is saved for backward: ``"input"``, or ``"output"``, which the next layer often saves anyway. With
            ``"output"``, backward computes the input as ``output / alpha``, so no slope may be exactly 0.
        inplace: overwrite the input. Eager calls save the output, as ``save="output"`` does.
        device, dtype: of `alpha`. The dtype is independent of the input's dtype.
        alpha_bounds: ``(low, high)``, or None. forward computes with `alpha` clamped to these bounds and does not write
            to the parameter. If `alpha` is outside, its gradient is 0 unless a descent step leads back inside, and its
            tangent in forward-mode AD is 0. So `alpha` exceeds a bound by at most one step, plus the effect of momentum
            and weight decay; :meth:`project_` clamps it. Exported programs contain a plain clamp. If the output is
            saved, neither bound may be 0.

    Attributes:
        alpha: the slopes, a parameter of shape ``[num_parameters]``. It is never 0-D, because FSDP does not support
            0-D parameters. A `state_dict` with the name `weight` also loads.

    Shape:
        - Input: any floating shape; with more than one slope, ``input.shape[channel_dim] == num_parameters``.
        - Output: the input's shape and dtype.

    Raises:
        ValueError: `num_parameters` is less than 1; `save` is neither ``"input"`` nor ``"output"``; `alpha_bounds` is
            not an ordered pair; or a bound is 0 and the output is saved.
        TypeError: `init` is a string.

    forward raises the errors of the function. Do not apply weight decay to slopes: :func:`leaky_ext.parameter_groups`.
    """

    alpha: nn.Parameter
    formulas = _LEAKY


class StraightThroughReLU(Slope):
    r"""ReLU in forward, the gradient of leaky ReLU in backward: units with negative inputs still learn.

    Args:
        alpha: the slope of the gradient where the input is negative.
        learnable: make `alpha` a parameter. Its gradient is the gradient of leaky ReLU: ``sum(grad * x)`` over the
            negative elements.
        num_parameters, channel_dim: as in :class:`LearnableLeakyReLU`. More than one slope requires ``learnable=True``.
        inplace: overwrite the input. Not supported with ``learnable=True``, because the gradient of `alpha` needs the
            input.
        device, dtype: of a learned `alpha`.
        alpha_bounds: ``(low, high)`` of a learned `alpha`, as in :class:`LearnableLeakyReLU`.

    Attributes:
        alpha: a float; if `learnable`, a parameter of shape ``[num_parameters]``.

    Input, output and errors are those of :class:`LearnableLeakyReLU`.
    """

    formulas = _RELU

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
        if learnable and inplace:
            raise ValueError("inplace=True does not work with learnable=True: the gradient of alpha needs the input")
        if not learnable and (num_parameters != 1 or alpha_bounds is not None):
            raise ValueError(f"num_parameters={num_parameters}, alpha_bounds={alpha_bounds} need learnable=True")
        self.learnable = learnable
        super().__init__(num_parameters, alpha, channel_dim, "input", inplace, device, dtype, alpha_bounds=alpha_bounds)

    def _activation(self, input: Tensor) -> Tensor:
        if self.inplace:
            return F.straight_through_relu_(input, self.slope(), channel_dim=self.channel_dim)
        return F.straight_through_relu(input, self.slope(), channel_dim=self.channel_dim)
