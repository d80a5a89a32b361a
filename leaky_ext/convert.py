"""Replace the activations of an existing model by those of leaky_ext."""

from typing import Any

import torch
from torch import nn

from ._fx_calls import function_calls
from ._in_place import reads_alone, safe_in_place
from ._replace import Conversion, Rules, replace
from .modules import Bounds, LearnableLeakyReLU, PReLU, Slope, StraightThroughReLU, check_module
from .reference import DTYPES

_ZERO = {nn.PReLU: "alpha * g", nn.LeakyReLU: "negative_slope * g", nn.ReLU: "0"}
_WRAPPERS = ("DistributedDataParallel", "FullyShardedDataParallel", "FSDPModule")
_keep_alpha = _load_weight = None  # models pickled by version 0.2 refer to these names: SlopeKeys


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
    """Replace activations of `model` in place, and return the changes. :func:`revert` is the inverse.

    ``convert(model)`` turns every :class:`torch.nn.PReLU` into a :class:`leaky_ext.PReLU`. Outputs do not change, and
    gradients change only at x == 0, as :attr:`Conversion.gradient_at_zero` says.

    Args:
        model: a module that contains activations or is one. Each activation stays the same object; its class changes.
        rules: what to replace, and by what. A key is ``nn.PReLU``, ``nn.LeakyReLU``, ``nn.ReLU``, or a pattern of
            activation names such as ``"decoder.*"``, as in :mod:`fnmatch`. The first matching pattern takes precedence
            over the type. Default: ``{nn.PReLU: "learnable"}``. Values:

            - ``"learnable"``: :class:`leaky_ext.PReLU` for an nn.PReLU, else :class:`LearnableLeakyReLU`;
            - ``"straight_through"``: :class:`StraightThroughReLU`;
            - None: no change.
        alpha: the slope of the module that replaces an :class:`torch.nn.ReLU`; other activations keep their slope. If
            the slope is learnable, 0.0 keeps the outputs of the model, 0.01 changes them.
        alpha_bounds: bounds of the learned slopes.
        save: what ``"learnable"`` modules save for backward: ``"input"`` or ``"output"``.
        inplace: overwrite the input of an activation if no other module can read it. This requires that the input
            comes from a convolution, a linear layer or a normalization, in an :class:`torch.nn.Sequential` or a
            torch.fx graph. Other activations stay out of place, as :attr:`Conversion.note` says.
        functions: also replace function calls by modules: ``F.relu``, ``torch.relu`` and ``x.relu()`` by the rule for
            ``nn.ReLU``, ``F.leaky_relu`` and ``F.prelu`` by the rules for nn.LeakyReLU and nn.PReLU. A module is named
            after the place of the call: ``"block.relu"``, ``"block.relu_1"``. Requires that `model`, or a part of it,
            is a :class:`torch.fx.GraphModule`, for example from :func:`torch.fx.symbolic_trace`. A call whose slope is
            neither a constant nor a parameter of the graph is not replaced, and :attr:`Conversion.skipped` says why.
            Calls inside a leaf of the graph are not found.
        dry_run: only return the changes; do not change `model`.

    The parameter of an nn.PReLU stays the same object. ``"learnable"`` also keeps its name, so checkpoints of every
    format, existing optimizers and rules by name remain valid. If an nn.LeakyReLU or nn.ReLU becomes learnable, it gets
    a new parameter `alpha`, with the dtype and device of the nearest parameters. So convert before you create the
    optimizer and before you wrap the model with DDP or FSDP. A `state_dict` of the old model loads with
    ``strict=True``; a new `alpha` is then set to its initial value. Hooks, training mode, sharing and ``inplace=True``
    of a module are kept. If a learned slope or a bound is exactly 0, the module saves its input, because the input
    cannot be computed from the output; :attr:`Conversion.note` says so.

    Returns:
        One :class:`Conversion` per activation that the rules match. :attr:`Conversion.skipped` is the reason if an
        activation cannot be replaced: it is parametrized, pruned, quantized, fused, scripted, lazy, of a subclass, or a
        function call with a computed slope.

    Raises:
        ValueError: a pattern matches no activation; a value in `rules` or an option is unknown; ``functions=True`` and
            no part of `model` is a GraphModule; or a new parameter would be added inside DDP or FSDP. Nothing is
            changed then.
        TypeError: `model` is not a module.
    """
    check_module(model)
    calls = {call.name: call for call in function_calls(model)} if functions else {}
    safe = safe_in_place(model) if inplace else set()
    wrappers = {type_.__name__ for module in model.modules() for type_ in type(module).__mro__}.intersection(_WRAPPERS)

    def make(old: Any, kind: str, name: str) -> tuple[nn.Module, str, str]:
        new: Slope
        overwrites, keep, notes = bool(getattr(old, "inplace", False)), save, []
        if inplace and kind == "straight_through" and isinstance(old, nn.PReLU):
            notes.append("not in place: the gradient of its slope needs its input")
        elif inplace and not overwrites:
            overwrites = reads_alone(calls[name].node, calls[name].owner) if name in calls else old in safe
            notes += [] if overwrites else ["not in place: something else may read its input"]
        start = float(getattr(old, "negative_slope", alpha))
        slope = old.weight if isinstance(old, nn.PReLU) else torch.tensor(start)
        cannot_rebuild = 0 in (alpha_bounds or ()) or (not slope.is_meta and bool((slope == 0).any()))
        if kind == "learnable" and (overwrites or keep == "output") and cannot_rebuild:
            overwrites, keep = False, "input"
            notes.append("saves its input, which cannot be rebuilt from the output: a slope or a bound is exactly 0")
        if isinstance(old, nn.PReLU):  # an nn.PReLU pickled by an older torch has no init
            count, start = old.weight.numel(), float(getattr(old, "init", 0.25))
            if kind == "learnable":
                new = PReLU(count, start, "meta", save=keep, inplace=overwrites, alpha_bounds=alpha_bounds)
            else:
                new = StraightThroughReLU(start, True, count, device="meta", alpha_bounds=alpha_bounds)
            setattr(new, new.slope_name, old.weight)
        elif kind == "straight_through":
            new = StraightThroughReLU(start, inplace=overwrites)
        else:
            if wrappers:
                raise ValueError(f"{name!r} would get a new parameter inside {wrappers}: convert before wrapping")
            where = _near(model, name)
            new = LearnableLeakyReLU(1, start, save=keep, inplace=overwrites, alpha_bounds=alpha_bounds, **where)
        new.loads_without = name in calls or not isinstance(old, nn.PReLU)
        return new, f"{_ZERO[type(old)]} before, g now", "; ".join(notes)

    kinds = dict.fromkeys(_ZERO, ("learnable", "straight_through"))
    rules = {nn.PReLU: "learnable"} if rules is None else rules
    done = replace(model, rules, kinds, make, list(calls.values()), dry_run)
    for call in calls.values():
        if isinstance(call.module, Slope):
            call.insert(call.module)
    return done


def _near(model: nn.Module, name: str) -> dict[str, Any]:
    """Return device and dtype for a new slope at `name`: those of the nearest parameter with a supported dtype."""
    while True:
        name = name.rpartition(".")[0]
        for key, parameter in model.named_parameters():
            if key.startswith(name and f"{name}.") and parameter.dtype in DTYPES:
                return {"device": parameter.device, "dtype": parameter.dtype}
        if not name:
            return {}
