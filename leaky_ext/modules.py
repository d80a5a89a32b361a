"""The activations as modules: PReLU, LearnableLeakyReLU and StraightThroughReLU."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Proxy, Tracer

from . import functional as F
from .operators.bounds import clamp_slope

Bounds = tuple[float, float]

_PRELU = nn.PReLU(device="meta")  # the module that tracers are asked about


class Slope(nn.Module):
    """The base of the modules: a slope, which is a 1-D parameter or a float, its bounds, and leaky ReLU of it."""

    alpha: Any
    init: Any
    slope_name = "alpha"
    learnable = True  # the slope is a parameter
    loads_without = False  # a state_dict may lack the slope: it is from before `convert` made one
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
        nn.Module.__init__(self)  # for PReLU not nn.PReLU's, which makes a parameter
        if num_parameters < 1:
            raise ValueError(f"num_parameters must be at least 1, got {num_parameters}")
        if isinstance(init, str):
            raise TypeError(f"init must be a float or a function that fills a tensor, got {init!r}")
        if save not in ("input", "output"):
            raise ValueError(f"save must be 'input' or 'output', got {save!r}")
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
        """Set the slopes to `init` again."""
        if not self.learnable:
            self.alpha = float(self.init)
        elif callable(self.init):
            self.init(getattr(self, self.slope_name))
        else:
            getattr(self, self.slope_name).fill_(self.init)

    @torch.no_grad()
    def project_(self) -> None:
        """Write the slopes, clamped to `alpha_bounds`, back into the parameter. Never waits for the device.

        No forward does so. To keep the stored slopes inside exactly, have the optimizer do it after each step:
        ``optimizer.register_step_post_hook(lambda *_: module.project_())``. Raises `RuntimeError` if the slope is
        computed (parametrized, pruned), and so no parameter of this module.
        """
        if self.alpha_bounds is not None:
            if (slope := self._parameters.get(self.slope_name)) is None:
                raise RuntimeError(f"{self}: {self.slope_name} is computed from other parameters: none to project")
            slope.clamp_(*self.alpha_bounds)

    def slope(self) -> Tensor | float:
        """The slope that forward uses: clamped to `alpha_bounds`, if there are any. Nothing is written."""
        slope = getattr(self, self.slope_name)
        if self.alpha_bounds is None or isinstance(slope, (int, float)):
            return slope
        return clamp_slope(slope, *self.alpha_bounds)

    def forward(self, input: Tensor) -> Tensor:
        if isinstance(input, Proxy) and (call := self._leaf(input)) is not None:
            return call
        if self.inplace:
            return F.learnable_leaky_relu_(input, self.slope(), channel_dim=self.channel_dim)
        return F.learnable_leaky_relu(input, self.slope(), channel_dim=self.channel_dim, save=self.save)

    def _leaf(self, input: Any) -> Proxy | None:
        """While torch.fx traces: the call of this module as one node, wherever nn.PReLU would be one node."""
        tracer = input.tracer
        path = tracer.path_of_module(self) if isinstance(tracer, Tracer) else ""
        is_leaf = path and tracer.is_leaf_module(_PRELU, path)
        return tracer.create_proxy("call_module", path, (input,), {}) if is_leaf else None

    def __prepare_scriptable__(self) -> Any:
        raise RuntimeError(f"torch.jit.script does not take {self}: call leaky_ext.revert first, or torch.jit.trace")

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Load the slope also if it was saved under the name that it has in another of these modules."""
        key, own = prefix + self.slope_name, self._parameters.get(self.slope_name)
        if own is not None and key not in state_dict:
            other = prefix + ("alpha" if self.slope_name == "weight" else "weight")
            if other in state_dict:
                state_dict[key] = state_dict.pop(other)
            elif self.loads_without and not own.is_meta:  # the slope was fixed, or has its own name in the graph
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
    r""":class:`torch.nn.PReLU`, computed by :func:`leaky_ext.learnable_leaky_relu`; :func:`leaky_ext.convert` makes it.

    It is a subclass, and its parameter has the same name: checkpoints, optimizer states, sharding plans, rules by name
    and ``isinstance`` treat it as they treat :class:`torch.nn.PReLU`.

    Args:
        num_parameters, init, device, dtype: as in :class:`torch.nn.PReLU`.
        channel_dim, save, inplace, alpha_bounds: as in :class:`LearnableLeakyReLU`.

    Attributes:
        weight: the slopes, a parameter of shape ``[num_parameters]``. A `state_dict` that calls them `alpha` loads too.

    Input, output and errors are those of :class:`LearnableLeakyReLU`.
    """

    slope_name = "weight"

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
        return "leaky_ext.PReLU" if type(self) is PReLU else super()._get_name()  # torch.nn's prints as PReLU


class LearnableLeakyReLU(Slope):
    r"""Leaky ReLU with a learned slope, ``x`` where ``x >= 0``, else ``alpha * x``: :func:`learnable_leaky_relu`.

    Args:
        num_parameters: number of slopes: 1 for all elements, or C, the size of the input's `channel_dim`.
        init: the first value of every slope, or a function like those of :mod:`torch.nn.init`, which fills a tensor in
            place, for example ``functools.partial(nn.init.uniform_, a=0.0, b=0.3)``. The module keeps it: with a
            lambda, which ``pickle`` refuses, the module can be saved by its state_dict alone.
        channel_dim: the dimension that slopes go with; negative counts from the end. Without effect for one slope.
        save: what is kept for backward: ``"input"``, or ``"output"``, which the next layer often keeps anyway. With
            ``"output"`` the input is rebuilt as ``output / alpha``, so no slope may be exactly 0.
        inplace: overwrite the input. The output is then kept for backward, and no slope may be exactly 0. Neither this
            nor ``save="output"`` works with a bound that is 0.
        device, dtype: of `alpha`; independent of the input's dtype.
        alpha_bounds: ``(low, high)``, or None. Forward computes with `alpha` clamped to these bounds, and writes
            nothing. Outside, the gradient is 0 unless a step of descent leads back in, and the tangent of forward-mode
            AD is 0. So the stored slope overshoots a bound by one step at most, or by what momentum and weight decay
            add; :meth:`project_` brings it back. Exported programs have a plain clamp.

    Attributes:
        alpha: the slopes, a parameter of shape ``[num_parameters]``: never 0-D, so FSDP takes it. A `state_dict` that
            calls them `weight` loads too.

    Shape:
        - Input: any floating shape; with more than one slope, ``input.shape[channel_dim] == num_parameters``.
        - Output: the input's shape and dtype.

    Raises:
        ValueError: `num_parameters` is less than 1, `save` is another word, or `alpha_bounds` are no pair, not in
            order, or 0 where the input must be rebuilt.
        TypeError: `init` is a string.

    Forward raises what the function does. Give slopes no weight decay: :func:`leaky_ext.parameter_groups`.
    """

    alpha: nn.Parameter


class StraightThroughReLU(Slope):
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

    Input, output and errors are those of :class:`LearnableLeakyReLU`.
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
        if learnable and inplace:
            raise ValueError("inplace=True does not work with learnable=True: the gradient of alpha needs the input")
        if not learnable and (num_parameters != 1 or alpha_bounds is not None):
            raise ValueError(f"num_parameters={num_parameters}, alpha_bounds={alpha_bounds} need learnable=True")
        self.learnable = learnable
        super().__init__(num_parameters, alpha, channel_dim, "input", inplace, device, dtype, alpha_bounds=alpha_bounds)

    def forward(self, input: Tensor) -> Tensor:
        if isinstance(input, Proxy) and (call := self._leaf(input)) is not None:
            return call
        if self.inplace:
            return F.straight_through_relu_(input, self.slope(), channel_dim=self.channel_dim)
        return F.straight_through_relu(input, self.slope(), channel_dim=self.channel_dim)
