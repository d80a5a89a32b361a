"""Replace the activations of leaky_ext by PyTorch's own: to export, to deploy, or to share a model."""

import torch
from torch import nn

from ._replace import Conversion, Rules, replace
from .modules import Bounds, LearnableLeakyReLU, PReLU, Slope, StraightThroughReLU, check_module

_KINDS = {
    PReLU: ("prelu", "leaky_relu"),
    LearnableLeakyReLU: ("prelu", "leaky_relu"),
    StraightThroughReLU: ("relu",),
}


def revert(model: nn.Module, rules: Rules | None = None, *, dry_run: bool = False) -> list[Conversion]:
    """Replace the activations of leaky_ext in `model` by PyTorch's own, in place, and return the changes.

    The inverse of :func:`convert`. The model then runs without leaky_ext, and exports to the native nodes ``PRelu``,
    ``LeakyRelu`` and ``Relu``. If `alpha` has x's dtype, the outputs are equal to the bit, except for the sign of a
    zero. (If a slope is infinite or NaN, outputs at x == 0 differ.) Gradients become those of PyTorch's modules: a
    StraightThroughReLU gets the gradient of ReLU, and gradients at x == 0 change.

    Args:
        model: a module that contains activations or is one. Each activation stays the same object; its class changes.
        rules: what to replace, and by what. Keys are :class:`PReLU`, :class:`LearnableLeakyReLU`,
            :class:`StraightThroughReLU` or patterns of names, as in :func:`convert`. Values:

            - ``"prelu"``: :class:`torch.nn.PReLU`, the default for a PReLU or a LearnableLeakyReLU;
            - ``"leaky_relu"``: :class:`torch.nn.LeakyReLU` with the value of the slope, for a PReLU or a
              LearnableLeakyReLU with one slope;
            - ``"relu"``: :class:`torch.nn.ReLU`, the default for a StraightThroughReLU;
            - None: no change.
        dry_run: only return the changes; do not change `model`.

    An nn.PReLU gets the same parameter object, clamped to its bounds, under the name `weight`. Hooks, training mode and
    sharing are kept. A `state_dict` that was saved before `revert` loads with ``strict=True``. Activations that cannot
    be replaced are in the result, as with :func:`convert`. An nn.PReLU has no ``inplace``: if the model reads the input
    of an in-place activation again, its outputs change. :attr:`Conversion.note` names these modules.

    Raises:
        ValueError: PyTorch's module cannot compute the same, because slopes belong to another dimension than 1, `alpha`
            is not 1-D, or an nn.LeakyReLU would have more than one slope; modules with different bounds share a
            parameter; or a rule is wrong as in :func:`convert`. The message names the module and a solution. Nothing is
            changed then.
    """
    check_module(model)
    users: dict[nn.Parameter, dict[Bounds | None, str]] = {}
    for name, module in model.named_modules():
        for parameter in module.parameters(recurse=False):
            users.setdefault(parameter, {}).setdefault(getattr(module, "alpha_bounds", None), name)

    def make(old: Slope, kind: str, name: str) -> tuple[nn.Module, str, str]:
        what, bounds = f"{name!r} is a {old}", old.alpha_bounds
        leave = f"leave it with rules {{{name!r}: None}} and export it as it is"
        stored = getattr(old, old.slope_name)
        for other, user in users.get(stored, {}).items() if bounds is not None else ():
            if other != bounds:  # clamping the parameter would change the output of the other module
                raise ValueError(
                    f"{name!r} keeps {old.slope_name} in {bounds}, and {user!r}, which shares it, in {other}: give "
                    "both the same alpha_bounds, or separate parameters"
                )
        if kind == "relu":
            return nn.ReLU(old.inplace), "g before, 0 now", "gradient where x < 0: alpha * g before, 0 now"
        if stored.ndim != 1:
            raise ValueError(
                f"{what} whose {old.slope_name} was given the shape {tuple(stored.shape)}, and PyTorch's modules do "
                f"not broadcast slopes: {leave}"
            )
        slopes = stored.numel()
        if kind == "leaky_relu":
            if slopes > 1:
                raise ValueError(f"{what}, and nn.LeakyReLU has one slope: 'prelu' is the rule for it")
            if stored.is_meta:
                raise ValueError(f"{what} on the meta device, which holds no slope for nn.LeakyReLU: load it first")
            return (
                nn.LeakyReLU(torch.as_tensor(old.slope()).item(), old.inplace),
                "g before, negative_slope * g now",
                "",
            )
        if slopes > 1 and old.channel_dim != 1:
            raise ValueError(
                f"{what}, and nn.PReLU supports slopes for dimension 1 only: put "
                f"nn.PReLU({slopes}) between two calls of movedim, or {leave}"
            )
        new = nn.PReLU(slopes, old.init if isinstance(old.init, (int, float)) else 0.25, device="meta")
        new.weight = stored
        return new, "g before, alpha * g now", "no longer in place" if old.inplace else ""

    rules = {type_: kinds[0] for type_, kinds in _KINDS.items()} if rules is None else rules
    return replace(model, rules, _KINDS, make, [], dry_run)
