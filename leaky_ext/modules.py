"""The activations as modules: PReLU, LearnableLeakyReLU and StraightThroughReLU."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Proxy, Tracer

from . import functional as F
from .bounds import clamp_slope

Init = float | Callable[[Tensor], Any]
Bounds = tuple[float, float]

_PRELU = nn.PReLU(device="meta")
"""The module that tracers are asked about."""


class Slope(nn.Module):
    """The base of the modules: a slope, which is a float or a 1-D parameter, and options."""

    slope_name = "alpha"
    """The attribute that is the slope."""
    loads_without = False
    """A state_dict may lack the slope, even with strict=True: it is from before :func:`leaky_ext.convert` made one."""

    num_parameters: int
    channel_dim: int
    save: str = "input"
    inplace: bool
    alpha_bounds: Bounds | None

    def _set_options(self, channel_dim: int, save: str, inplace: bool, alpha_bounds: Bounds | None) -> None:
        if save not in ("input", "output"):
            raise ValueError(f"save must be 'input' or 'output', got {save!r}")
        if alpha_bounds is not None:
            is_pair = isinstance(alpha_bounds, Sequence) and len(alpha_bounds) == 2
            if not (is_pair and alpha_bounds[0] <= alpha_bounds[1]):
                raise ValueError(f"alpha_bounds must be (low, high) with low <= high, got {alpha_bounds}")
            alpha_bounds = (float(alpha_bounds[0]), float(alpha_bounds[1]))
            if 0 in alpha_bounds and (inplace or save == "output"):
                raise ValueError(
                    f"alpha_bounds={alpha_bounds} makes slopes exactly 0, from which save='output' and inplace=True "
                    "cannot rebuild the input: use save='input', or a bound other than 0"
                )
        self.channel_dim = channel_dim
        self.save = save
        self.inplace = inplace
        self.alpha_bounds = alpha_bounds

    def _new_slopes(self, num_parameters: int, device: Any, dtype: torch.dtype | None) -> nn.Parameter:
        if num_parameters < 1:
            raise ValueError(f"num_parameters must be at least 1, got {num_parameters}")
        return nn.Parameter(torch.empty(num_parameters, device=device, dtype=dtype))

    @torch.no_grad()
    def project_(self) -> None:
        """Write the slopes, clamped to `alpha_bounds`, back into the parameter. Never waits for the device.

        No forward does so. To keep the stored slopes inside exactly, have the optimizer do it after each step:
        ``optimizer.register_step_post_hook(lambda *_: module.project_())``.

        Raises:
            RuntimeError: the slope is computed (parametrized, pruned), and is not a parameter of this module.
        """
        if self.alpha_bounds is None:
            return
        slope = self._parameters.get(self.slope_name)
        if slope is None:
            raise RuntimeError(f"{self}: {self.slope_name} is computed from other parameters: there is none to project")
        slope.clamp_(*self.alpha_bounds)

    def slope(self) -> Tensor | float:
        """The slope that forward uses: clamped to `alpha_bounds`, if there are any. Nothing is written."""
        slope = getattr(self, self.slope_name)
        if self.alpha_bounds is None or isinstance(slope, (int, float)):
            return slope
        return clamp_slope(slope, *self.alpha_bounds)

    def slope_parameters(self) -> dict[str, nn.Parameter]:
        """The parameters that the slope is, or, if it is parametrized or pruned, those that it is computed from."""
        own = (self.slope_name, f"{self.slope_name}_orig")
        computed = f"parametrizations.{self.slope_name}."
        return {name: p for name, p in self.named_parameters() if name in own or name.startswith(computed)}

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Load the slope also if it was saved under the name that it has in another of these modules."""
        key = prefix + self.slope_name
        other = prefix + ("alpha" if self.slope_name == "weight" else "weight")
        if self.slope_name in self._parameters and key not in state_dict:
            if other in state_dict:
                state_dict[key] = state_dict.pop(other)
            elif self.loads_without and not self._parameters[self.slope_name].is_meta:  # type: ignore[union-attr]
                state_dict[key] = self._parameters[self.slope_name].detach()  # type: ignore[union-attr]
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _leaf(self, input: Any) -> Proxy | None:
        """While torch.fx traces: the call of this module as one node, wherever nn.PReLU would be one node."""
        tracer = input.tracer
        path = tracer.path_of_module(self) if isinstance(tracer, Tracer) else ""
        if path and tracer.is_leaf_module(_PRELU, path):
            return tracer.create_proxy("call_module", path, (input,), {})
        return None

    def _shown(self) -> list[str]:
        """The options that are not the default, for repr."""
        options = {
            f"channel_dim={self.channel_dim}": self.num_parameters > 1,
            f"save={self.save!r}": self.save != "input",
            "inplace=True": self.inplace,
            f"alpha_bounds={self.alpha_bounds}": self.alpha_bounds is not None,
        }
        return [text for text, differs in options.items() if differs]


class _Learnable(Slope):
    """A slope that is a parameter, and leaky ReLU."""

    def forward(self, input: Tensor) -> Tensor:
        if isinstance(input, Proxy) and (call := self._leaf(input)) is not None:
            return call
        if self.inplace:
            return F.learnable_leaky_relu_(input, self.slope(), channel_dim=self.channel_dim)
        return F.learnable_leaky_relu(input, self.slope(), channel_dim=self.channel_dim, save=self.save)


class PReLU(_Learnable, nn.PReLU):
    r""":class:`torch.nn.PReLU`, computed by :func:`leaky_ext.learnable_leaky_relu`; :func:`leaky_ext.convert` makes it.

    It is a subclass, and its parameter has the same name: checkpoints, optimizer states, sharding plans, rules by name
    and ``isinstance`` treat it as they treat :class:`torch.nn.PReLU`.

    Args:
        num_parameters, init, device, dtype: as in :class:`torch.nn.PReLU`.
        channel_dim, save, inplace, alpha_bounds: as in :class:`LearnableLeakyReLU`.

    Attributes:
        weight: the slopes, a parameter of shape ``[num_parameters]``. A `state_dict` that calls them `alpha` loads too.

    Shape:
        - Input: any floating shape; with more than one slope, ``input.shape[channel_dim] == num_parameters``.
        - Output: the input's shape and dtype.
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
        if num_parameters < 1:
            raise ValueError(f"num_parameters must be at least 1, got {num_parameters}")
        super().__init__(num_parameters, init, device, dtype)
        self._set_options(channel_dim, save, inplace, alpha_bounds)

    def _get_name(self) -> str:
        return "leaky_ext.PReLU"  # not to be mistaken for torch.nn's in what is printed

    def extra_repr(self) -> str:
        return ", ".join([f"num_parameters={self.num_parameters}", *self._shown()])


class LearnableLeakyReLU(_Learnable):
    r"""Leaky ReLU whose negative slope is trained: ``x`` where ``x >= 0``, else ``alpha * x``.

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
            nothing. The gradient passes inside the bounds. Outside it passes if a step of descent leads back in, and is
            0 if it leads further out, so the stored slope does not drift away: it overshoots a bound by one step at
            most, or by what the optimizer's momentum and weight decay add. :meth:`project_` writes the clamped slopes
            back. The tangent of forward-mode AD outside is 0. Exported programs have a plain clamp.

    Attributes:
        alpha: the slopes, a parameter of shape ``[num_parameters]``: never 0-D, so FSDP takes it. A `state_dict` that
            calls them `weight` loads too.

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
        super().__init__()
        self._set_options(channel_dim, save, inplace, alpha_bounds)
        self.num_parameters = num_parameters
        self.init = init
        self.alpha = self._new_slopes(num_parameters, device, dtype)
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

    def extra_repr(self) -> str:
        init = getattr(self.init, "__name__", self.init) if callable(self.init) else self.init
        return ", ".join([f"num_parameters={self.num_parameters}, init={init}", *self._shown()])


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

    Shape:
        - Input: any floating shape; with more than one slope, ``input.shape[channel_dim] == num_parameters``.
        - Output: the input's shape and dtype.
    """

    alpha: nn.Parameter | float

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
        if not learnable and num_parameters != 1:
            raise ValueError(f"num_parameters must be 1 unless learnable=True, got {num_parameters}")
        if not learnable and alpha_bounds is not None:
            raise ValueError(f"alpha_bounds={alpha_bounds} needs learnable=True")
        super().__init__()
        self._set_options(channel_dim, "input", inplace, alpha_bounds)
        self.init = float(alpha)
        self.learnable = learnable
        self.num_parameters = num_parameters
        if learnable:
            self.alpha = self._new_slopes(num_parameters, device, dtype)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set the slope to its first value again."""
        if self.learnable:
            assert isinstance(self.alpha, Tensor)
            nn.init.constant_(self.alpha, self.init)
        else:
            self.alpha = self.init

    def forward(self, input: Tensor) -> Tensor:
        if isinstance(input, Proxy) and (call := self._leaf(input)) is not None:
            return call
        if self.inplace:
            return F.straight_through_relu_(input, self.slope(), channel_dim=self.channel_dim)
        return F.straight_through_relu(input, self.slope(), channel_dim=self.channel_dim)

    def extra_repr(self) -> str:
        shown = [f"alpha={self.init if self.learnable else self.alpha}"]
        if self.learnable:
            shown.append(f"learnable=True, num_parameters={self.num_parameters}")
        return ", ".join(shown + self._shown())
