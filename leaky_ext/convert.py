"""Replace the activations of an existing model by those of leaky_ext."""

from typing import Any

from torch import Tensor, nn

from ._replace import Conversion, Found, Rules, become, check_patterns, check_rules, find, reset_containers, rule
from .modules import Bounds, LearnableLeakyReLU, PReLU, Slope, StraightThroughReLU
from .traced import function_calls

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
    save: str = "input",
    inplace: bool = False,
    functions: bool = False,
    dry_run: bool = False,
) -> list[Conversion]:
    """Replace activations of `model` in place, and return what was changed. :func:`revert` is the inverse.

    ``convert(model)`` makes a :class:`leaky_ext.PReLU` of every :class:`torch.nn.PReLU`. Outputs stay as they were,
    and so does training, except
    that an input of exactly 0 counts as positive here and as negative in :class:`torch.nn.PReLU`,
    :class:`torch.nn.LeakyReLU` and :class:`torch.nn.ReLU`: the gradient there is then ``g`` instead of ``alpha * g`` or
    0. Each :class:`Conversion` says so.

    Args:
        model: any module that holds activations, or is one. Each stays the same object and changes its class.
        rules: what to replace, and by what. A key is ``nn.PReLU``, ``nn.LeakyReLU`` or ``nn.ReLU``, or a pattern such
            as ``"decoder.*"`` for the names of activations, as in :mod:`fnmatch`. A value is ``"learnable"`` for
            :class:`leaky_ext.PReLU` in place of nn.PReLU and :class:`LearnableLeakyReLU` in place of the others,
            ``"straight_through"`` for :class:`StraightThroughReLU`, or None: no change. The first pattern that matches
            wins, then the type. Default: ``{nn.PReLU: "learnable"}``.
        alpha: the slope that an :class:`torch.nn.ReLU` gets; the others keep their own. As a learnable slope 0.01
            changes the outputs, 0.0 does not.
        alpha_bounds: bounds of the slopes that are learned.
        save: what modules made by ``"learnable"`` keep for backward, ``"input"`` or ``"output"``.
        inplace: modules overwrite their input: right only where nothing else reads it.
        functions: also replace activations that are called as functions, by modules: ``F.relu``, ``torch.relu`` and
            ``x.relu()`` under the rule for ``nn.ReLU``, ``F.leaky_relu`` and ``F.prelu`` likewise. Only a graph shows
            them: `model`, or a part of it, must be a :class:`torch.fx.GraphModule`, such as
            :func:`torch.fx.symbolic_trace` returns. Each call gets a module of its own, named after where it stood,
            ``"block.relu"``, ``"block.relu_1"``. A call stays a function where its slope is not a constant, or not a
            parameter of the graph; so do calls inside of the graph's leaves, such as PyTorch's own modules.
        dry_run: change nothing, only return what would be changed.

    The parameter of an :class:`torch.nn.PReLU` stays the same object under the same name, so checkpoints of every
    format, an existing optimizer and rules by name keep working. New slopes, `alpha`, take dtype and device from the
    nearest parameters; convert before the optimizer, DDP and FSDP are created. A `state_dict` of the old model loads
    with ``strict=True``. Hooks, training mode and sharing are kept. ``inplace=True`` is kept, except where a learned
    slope starts at 0 or has a bound of 0: the input could not be rebuilt.

    Returns:
        A :class:`Conversion` for each activation that the rules name. Those that stay as they are, because they are
        parametrized, pruned, quantized, scripted or of a subclass, have the reason in :attr:`Conversion.skipped`.

    Raises:
        ValueError: a pattern matches no activation, a rule's value or an option is unknown; ``functions=True`` and no
            part of `model` is a GraphModule. Nothing is changed then.
    """
    rules = {nn.PReLU: "learnable"} if rules is None else rules
    check_rules(rules, _CONVERTIBLE, ("learnable", "straight_through"))
    calls = {call.name: call for call in function_calls(model)} if functions else {}
    found = find(model, _CONVERTIBLE, besides=Slope)
    found += [Found((name,), call.module, type(call.module)) for name, call in calls.items()]
    check_patterns(rules, found)

    done = []
    planned = []
    for one in found:
        kind = rule(rules, one)
        if kind is None:
            continue
        if one.skipped:
            done.append(one.stays())
            continue
        old = one.module
        new = _replacement(old, kind, alpha, alpha_bounds, save, inplace, _like(model, one.names[0]))
        call = calls.get(one.names[0])
        if call is not None or not isinstance(old, nn.PReLU):
            new.loads_without = True
        planned.append((old, new, call))
        done.append(Conversion(one.names, str(old), str(new), _ZERO[type(old)]))
    if not dry_run:
        for old, new, call in planned:
            if call is not None:
                call.insert(old)
            become(old, new)
        reset_containers(model)
    return done


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
    old: Activation,
    kind: str,
    alpha: float,
    alpha_bounds: Bounds | None,
    save: str,
    inplace: bool,
    like: Tensor | None,
) -> Slope:
    inplace = inplace or bool(getattr(old, "inplace", False))
    if isinstance(old, nn.PReLU):
        start = float(getattr(old, "init", 0.25))  # older torch did not keep it
        count = old.weight.numel()
        new: Slope
        if kind == "learnable":
            new = PReLU(count, start, device="meta", save=save, inplace=inplace, alpha_bounds=alpha_bounds)
            new.weight = old.weight
        else:  # a slope that was learned stays one
            new = StraightThroughReLU(start, True, count, device="meta", alpha_bounds=alpha_bounds)
            new.alpha = old.weight
        return new
    start = float(old.negative_slope) if isinstance(old, nn.LeakyReLU) else alpha
    if kind == "straight_through":
        return StraightThroughReLU(start, inplace=inplace)
    where: dict[str, Any] = {} if like is None else {"device": like.device, "dtype": like.dtype}
    inplace = inplace and start != 0 and 0 not in (alpha_bounds or ())
    return LearnableLeakyReLU(1, start, save=save, inplace=inplace, alpha_bounds=alpha_bounds, **where)
