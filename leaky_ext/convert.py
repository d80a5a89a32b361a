"""Replace the activations of an existing model by those of leaky_ext."""

from typing import Any

from torch import Tensor, nn

from ._replace import Conversion, Rules, SlopeKeys, check_patterns, check_rules, find, put, rule
from .modules import Bounds, LearnableLeakyReLU, StraightThroughReLU
from .traced import Call, function_calls

Activation = nn.PReLU | nn.LeakyReLU | nn.ReLU

_CONVERTIBLE = (nn.PReLU, nn.LeakyReLU, nn.ReLU)
_ZERO = {
    nn.PReLU: "alpha * g before, g now",
    nn.LeakyReLU: "negative_slope * g before, g now",
    nn.ReLU: "0 before, g now",
}


def convert(
    model: nn.Module,
    rules: Rules | None = None,
    *,
    alpha: float = 0.01,
    alpha_bounds: Bounds | None = None,
    functions: bool = False,
    dry_run: bool = False,
) -> list[Conversion]:
    """Replace activations of `model` in place, and return what was changed. :func:`revert` is the inverse.

    ``convert(model)`` replaces every :class:`torch.nn.PReLU`. Outputs stay as they were, and so does training, except
    that an input of exactly 0 counts as positive here and as negative in :class:`torch.nn.PReLU`,
    :class:`torch.nn.LeakyReLU` and :class:`torch.nn.ReLU`: the gradient there is then ``g`` instead of ``alpha * g`` or
    0. Each :class:`Conversion` says so.

    Args:
        model: any module that holds the activations; one that *is* an activation cannot be replaced in place.
        rules: what to replace, and by what. A key is ``nn.PReLU``, ``nn.LeakyReLU`` or ``nn.ReLU`` (the type itself,
            not its subclasses), or a pattern such as ``"decoder.*"`` for the names of activations, as in
            :mod:`fnmatch`. A value is ``"learnable"`` for :class:`LearnableLeakyReLU`, ``"straight_through"`` for
            :class:`StraightThroughReLU`, or None: no change. The first pattern that matches wins, then the type.
            Default: ``{nn.PReLU: "learnable"}``.
        alpha: the slope that an :class:`torch.nn.ReLU` gets; the others keep their own. As a learnable slope 0.01
            changes the outputs, 0.0 does not.
        alpha_bounds: bounds of the slopes that are learned.
        functions: also replace activations that are called as functions, by modules: ``F.relu``, ``torch.relu`` and
            ``x.relu()`` under the rule for ``nn.ReLU``, ``F.leaky_relu`` and ``F.prelu`` likewise. Only a graph shows
            them: `model`, or a part of it, must be a :class:`torch.fx.GraphModule`, such as
            :func:`torch.fx.symbolic_trace` returns. Each call gets a module of its own, named after where it stood,
            ``"block.relu"``, ``"block.relu_1"``. A call stays a function where its slope is not a constant, or not a
            parameter of the graph; so do calls inside of the graph's leaves, such as PyTorch's own modules.
        dry_run: change nothing, only return what would be changed.

    The parameter of an :class:`torch.nn.PReLU` is kept, the same object, so an existing optimizer keeps working. New
    slopes take dtype and device from the nearest parameters; convert before the optimizer, DDP and FSDP are created.
    Hooks, training mode and sharing are kept, and the `state_dict` of the old model still loads, also with
    ``strict=True``. ``inplace=True`` is kept, except where a learned slope starts at 0 or has a bound of 0: the input
    could not be rebuilt.

    Raises:
        ValueError: `model` is itself an activation that a rule asks to replace, a pattern matches no activation, or a
            rule's value is unknown; ``functions=True`` and no part of `model` is a GraphModule. Nothing is changed
            then.
    """
    rules = {nn.PReLU: "learnable"} if rules is None else rules
    check_rules(rules, _CONVERTIBLE, ("learnable", "straight_through"))
    calls = function_calls(model) if functions else []
    found = find(model, _CONVERTIBLE) + [((call.name,), call) for call in calls]
    check_patterns(rules, [names for names, _ in found])

    planned = []
    for names, place in found:
        old = place.module if isinstance(place, Call) else place
        kind = rule(rules, names, old)
        if kind is None:
            continue
        if "" in names:
            raise ValueError(f"{old} is the model itself and cannot be replaced in place; make a {kind} one instead")
        new = _replacement(old, kind, alpha, alpha_bounds, _like(model, names[0]))
        planned.append((place, old, new, Conversion(names, str(old), str(new), _ZERO[type(old)])))
    if not dry_run:
        for place, old, new, change in planned:
            if isinstance(place, Call):
                place.insert(old)
            renamed = isinstance(old, nn.PReLU) and not isinstance(place, Call)
            put(model, change.names, old, new, SlopeKeys(_load_weight if renamed else _keep_alpha))
    return [change for *_, change in planned]


def _like(model: nn.Module, name: str) -> Tensor | None:
    """A floating parameter that a new slope at `name` takes device and dtype from: the nearest one around it."""
    around, module = [model], model
    for part in name.split(".")[:-1]:
        module = getattr(module, part, None)  # type: ignore[assignment]  # None: a call's place, not made yet
        if module is None:
            break
        around.append(module)
    for module in reversed(around):
        for parameter in module.parameters():
            if parameter.is_floating_point():
                return parameter
    return None


def _replacement(
    old: Activation, kind: str, alpha: float, alpha_bounds: Bounds | None, like: Tensor | None
) -> LearnableLeakyReLU | StraightThroughReLU:
    if isinstance(old, nn.PReLU):
        start, like = float(old.init), old.weight
    elif isinstance(old, nn.LeakyReLU):
        start = float(old.negative_slope)
    else:
        start = alpha
    inplace = bool(getattr(old, "inplace", False))
    where: dict[str, Any] = {} if like is None else {"device": like.device, "dtype": like.dtype}
    new: LearnableLeakyReLU | StraightThroughReLU
    if kind == "learnable":
        count = old.num_parameters if isinstance(old, nn.PReLU) else 1
        inplace = inplace and start != 0 and 0 not in (alpha_bounds or ())
        new = LearnableLeakyReLU(count, start, inplace=inplace, alpha_bounds=alpha_bounds, **where)
    elif isinstance(old, nn.PReLU):  # a slope that was learned stays one
        new = StraightThroughReLU(start, True, old.num_parameters, alpha_bounds=alpha_bounds, **where)
    else:
        new = StraightThroughReLU(start, inplace=inplace)
    if isinstance(old, nn.PReLU):
        new.alpha = old.weight
    return new


def _load_weight(module: nn.Module, state_dict: dict[str, Any], prefix: str) -> None:
    """A PReLU saved its slope as `weight`."""
    if prefix + "weight" in state_dict:
        state_dict[prefix + "alpha"] = state_dict.pop(prefix + "weight")


def _keep_alpha(module: nn.Module, state_dict: dict[str, Any], prefix: str) -> None:
    """A LeakyReLU, a ReLU or a function saved nothing under this name: the slope stays what it is."""
    if isinstance(module.alpha, Tensor) and not module.alpha.is_meta:
        state_dict.setdefault(prefix + "alpha", module.alpha.detach())
