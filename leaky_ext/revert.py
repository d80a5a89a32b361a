"""Replace the activations of leaky_ext by PyTorch's own: to export, to deploy, or to share a model."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from ._replace import (
    Conversion,
    Found,
    Rules,
    SlopeKeys,
    become,
    check_patterns,
    check_rules,
    find,
    reset_containers,
    rule,
)
from .modules import LearnableLeakyReLU, PReLU, Slope, StraightThroughReLU

_TYPES = (PReLU, LearnableLeakyReLU, StraightThroughReLU)
_DEFAULT: Rules = {PReLU: "prelu", LearnableLeakyReLU: "prelu", StraightThroughReLU: "relu"}

Keys = Callable[[Any, dict[str, Any], str], None]


def revert(model: nn.Module, rules: Rules | None = None, *, dry_run: bool = False) -> list[Conversion]:
    """Replace the activations of leaky_ext in `model`, in place, by PyTorch's own; return what was changed.

    The inverse of :func:`convert`. The model then needs no leaky_ext, and exports to the native nodes that deployment
    tools know: ``PRelu``, ``LeakyRelu``, ``Relu``. Outputs stay equal: to the bit where `alpha` has x's dtype, except
    for the sign of a zero (and except at inputs of exactly 0 if a slope is infinite or NaN). Gradients become PyTorch's
    own: ReLU's in place of the straight-through one, and at inputs of exactly 0.

    Args:
        model: any module that holds activations, or is one. Each stays the same object and changes its class.
        rules: what to replace, and by what. Keys are :class:`PReLU`, :class:`LearnableLeakyReLU`,
            :class:`StraightThroughReLU` or patterns of names, chosen as in :func:`convert`. Values:

            - ``"prelu"``: :class:`torch.nn.PReLU`, for a PReLU or a LearnableLeakyReLU;
            - ``"leaky_relu"``: :class:`torch.nn.LeakyReLU` of the slope's value, for one of these with one slope;
            - ``"relu"``: :class:`torch.nn.ReLU`, for a StraightThroughReLU;
            - None: no change.

            Default: ``{PReLU: "prelu", LearnableLeakyReLU: "prelu", StraightThroughReLU: "relu"}``.
        dry_run: change nothing, only return what would be changed.

    A :class:`torch.nn.PReLU` gets the same parameter object, with its bounds applied, under the name `weight`. Hooks,
    training mode and sharing are kept. A `state_dict` that was saved before still loads, also with ``strict=True``.
    What cannot be replaced for the reasons that :func:`convert` names is in the result as :attr:`Conversion.skipped`.
    :class:`torch.nn.PReLU` has no ``inplace``: the input is no longer overwritten, which :attr:`Conversion.note` says.
    Where a network reads that input again, its outputs change.

    Raises:
        ValueError: PyTorch's module cannot compute the same: slopes go with another dimension than 1, `alpha` is not
            1-D, there is more than one slope for a LeakyReLU; a parameter is shared by modules with different bounds;
            or a rule is wrong as in :func:`convert`. The message names the module and what to do, and nothing is
            changed then.
    """
    rules = _DEFAULT if rules is None else rules
    check_rules(rules, _TYPES, ("prelu", "leaky_relu", "relu"))
    found = find(model, _TYPES)
    check_patterns(rules, found)

    done = []
    planned: list[tuple[str, Slope, nn.Module, Keys | None]] = []
    for one in found:
        kind = rule(rules, one)
        if kind is None:
            continue
        if one.skipped:
            done.append(one.stays())
            continue
        old = one.module
        new, zero, keys = _plain(one, kind)
        planned.append((one.names[0], old, new, keys))
        done.append(Conversion(one.names, str(old), str(new), zero, _note(old, kind)))
    _check_bounds(model, [(name, old) for name, old, *_ in planned])
    if not dry_run:
        for _, old, new, keys in planned:
            old.project_()
            become(old, new)
            if keys is not None:
                old.register_load_state_dict_pre_hook(SlopeKeys(keys))
        reset_containers(model)
    return done


def _plain(one: Found, kind: str) -> tuple[nn.Module, str, Keys | None]:
    """PyTorch's module, how its gradient at 0 differs, and what loads a state_dict if the name of the slope changes."""
    old, name = one.module, one.names[0]
    what = f"{name!r} is a {old}"
    if isinstance(old, StraightThroughReLU):
        if kind != "relu":
            raise ValueError(f"{what}, whose forward is ReLU: 'relu' is the rule for it, not {kind!r}")
        return nn.ReLU(old.inplace), "g before, 0 now", _into_relu
    if kind == "relu":
        raise ValueError(f"{what}, whose slope ReLU does not have: 'prelu' or 'leaky_relu' is the rule for it")
    leave = f"leave it with rules {{{name!r}: None}} and export it as it is"
    stored = getattr(old, old.slope_name)
    if stored.ndim != 1:
        raise ValueError(
            f"{what} whose {old.slope_name} was given the shape {tuple(stored.shape)}, and PyTorch's modules do not "
            f"broadcast slopes: {leave}"
        )
    slopes = stored.numel()
    if kind == "leaky_relu":
        if slopes > 1:
            raise ValueError(f"{what}, and nn.LeakyReLU has one slope: 'prelu' is the rule for it")
        if stored.is_meta:
            raise ValueError(f"{what} on the meta device, which holds no slope for nn.LeakyReLU: load it first")
        slope = old.slope().item()
        return nn.LeakyReLU(slope, old.inplace), "g before, negative_slope * g now", _into_leaky
    if slopes > 1 and old.channel_dim != 1:
        raise ValueError(
            f"{what}, and the slopes of nn.PReLU go with dimension 1: put "
            f"nn.PReLU({slopes}) between two calls of movedim, or {leave}"
        )
    new = nn.PReLU(slopes, old.init if isinstance(old.init, (int, float)) else 0.25, device="meta")
    new.weight = stored
    return new, "g before, alpha * g now", None if old.slope_name == "weight" else _into_prelu


def _note(old: Slope, kind: str) -> str:
    if kind == "relu":
        return "gradient where x < 0: alpha * g before, 0 now"
    return "no longer in place" if old.inplace and kind == "prelu" else ""


def _check_bounds(model: nn.Module, reverted: list[tuple[str, Slope]]) -> None:
    """To apply the bounds of one module must not change what another one computes with the same parameter."""
    owners = [(name, module) for name, module in model.named_modules() if isinstance(module, Slope)]
    for name, old in reverted:
        stored = set(map(id, old.slope_parameters().values()))
        for other_name, other in owners:
            shared = stored.intersection(map(id, other.slope_parameters().values()))
            if old.alpha_bounds is not None and shared and other.alpha_bounds != old.alpha_bounds:
                raise ValueError(
                    f"{name!r} keeps {old.slope_name} in {old.alpha_bounds}, and {other_name!r}, which shares it, in "
                    f"{other.alpha_bounds}: give both the same alpha_bounds, or each a parameter of its own"
                )


def _into_prelu(module: nn.PReLU, state_dict: dict[str, Any], prefix: str) -> None:
    if prefix + "alpha" in state_dict:
        state_dict[prefix + "weight"] = state_dict.pop(prefix + "alpha")


def _into_leaky(module: nn.LeakyReLU, state_dict: dict[str, Any], prefix: str) -> None:
    for key in ("alpha", "weight"):
        slope = state_dict.pop(prefix + key, None)
        if isinstance(slope, Tensor) and not slope.is_meta:
            module.negative_slope = slope.item()


def _into_relu(module: nn.ReLU, state_dict: dict[str, Any], prefix: str) -> None:
    for key in ("alpha", "weight"):
        state_dict.pop(prefix + key, None)
