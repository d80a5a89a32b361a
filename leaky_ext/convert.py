"""Replace the activations of an existing model by those of leaky_ext."""

from typing import Any

import torch
from torch import nn

from ._fx_calls import function_calls
from ._in_place import reads_alone, safe_in_place
from ._replace import Conversion, Rules, replace
from .modules import Bounds, LearnableLeakyReLU, PReLU, Slope, StraightThroughReLU

_ZERO = {nn.PReLU: "alpha * g", nn.LeakyReLU: "negative_slope * g", nn.ReLU: "0"}
_WRAPPERS = ("DistributedDataParallel", "FullyShardedDataParallel", "FSDPModule")
_DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
_keep_alpha = _load_weight = None  # what 0.2 pickled refers to: SlopeKeys


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

    ``convert(model)`` makes a :class:`leaky_ext.PReLU` of every :class:`torch.nn.PReLU`. Outputs stay as they were, and
    so does training, except at inputs of exactly 0. They count as positive here, and their gradient is ``g``. PyTorch's
    PReLU and LeakyReLU give ``alpha * g``, ReLU gives 0. Each :class:`Conversion` says so.

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
        inplace: modules overwrite their input if nothing else can read it: if it comes from a convolution, a linear
            layer or a normalization before them in an :class:`torch.nn.Sequential` or in a torch.fx graph. Others stay
            out of place, and :attr:`Conversion.note` says so.
        functions: also replace calls of functions (``F.relu``, ``torch.relu`` and ``x.relu()`` under the rule for
            ``nn.ReLU``, ``F.leaky_relu`` and ``F.prelu`` likewise) by modules, named after where they stood:
            ``"block.relu"``, ``"block.relu_1"``. Only a graph shows calls: `model`, or a part of it, must be a
            :class:`torch.fx.GraphModule`, as from :func:`torch.fx.symbolic_trace`. A call stays if its slope is no
            constant and no parameter of the graph, or if it is inside of a leaf of the graph.
        dry_run: change nothing, only return what would be changed.

    The parameter of an nn.PReLU stays the same object; ``"learnable"`` keeps its name too, so checkpoints of every
    format, an existing optimizer and rules by name keep working. A LeakyReLU or a ReLU that becomes learnable adds a
    parameter, `alpha`, with dtype and device of the nearest parameters: convert before the optimizer, DDP and FSDP are
    created. A `state_dict` of the old model loads with ``strict=True``; a new `alpha` is then set to its first value.
    Hooks, training mode, sharing and a module's own ``inplace=True`` are kept. With a learned slope or a bound that is
    exactly 0 the input cannot be rebuilt: such a module keeps its input, and :attr:`Conversion.note` says so.

    Returns:
        A :class:`Conversion` for each activation that the rules name. Those that must stay as they are have the reason
        in :attr:`Conversion.skipped`: parametrized, pruned, quantized, fused, scripted, lazy, of a subclass.

    Raises:
        ValueError: a pattern matches no activation, a rule's value or an option is unknown; ``functions=True`` and no
            part of `model` is a GraphModule; DDP or FSDP would not know a new parameter. Nothing is changed then.
    """
    calls = {call.name: call for call in function_calls(model)} if functions else {}
    safe = safe_in_place(model) if inplace else set()
    wrappers = {type_.__name__ for module in model.modules() for type_ in type(module).__mro__}.intersection(_WRAPPERS)

    def make(old: Any, kind: str, name: str) -> tuple[nn.Module, str, str]:
        new: Slope
        overwrites, keep, notes = bool(getattr(old, "inplace", False)), save, []
        if inplace and not overwrites:
            overwrites = reads_alone(calls[name].node, calls[name].owner) if name in calls else old in safe
            notes += [] if overwrites else ["not in place: something else may read its input"]
        start = float(getattr(old, "negative_slope", alpha))
        slope = old.weight if isinstance(old, nn.PReLU) else torch.tensor(start)
        cannot_rebuild = 0 in (alpha_bounds or ()) or (not slope.is_meta and bool((slope == 0).any()))
        if kind == "learnable" and (overwrites or keep == "output") and cannot_rebuild:
            overwrites, keep = False, "input"
            notes.append("keeps its input: it cannot be rebuilt, since a slope or a bound is exactly 0")
        if isinstance(old, nn.PReLU):  # its parameter stays; an older torch did not keep init
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
                raise ValueError(f"{name!r} would get a parameter that {wrappers} do not know: convert before wrapping")
            where = _near(model, name)
            new = LearnableLeakyReLU(1, start, save=keep, inplace=overwrites, alpha_bounds=alpha_bounds, **where)
        new.loads_without = name in calls or not isinstance(old, nn.PReLU)
        return new, f"{_ZERO[type(old)]} before, g now", "; ".join(notes)

    kinds = dict.fromkeys(_ZERO, ("learnable", "straight_through"))
    rules = {nn.PReLU: "learnable"} if rules is None else rules
    done = replace(model, rules, kinds, make, {name: call.module for name, call in calls.items()}, dry_run)
    for call in calls.values():
        if isinstance(call.module, Slope):
            call.insert(call.module)
    return done


def _near(model: nn.Module, name: str) -> dict[str, Any]:
    """Device and dtype for a new slope at `name`: those of the nearest parameter around it, if slopes may have them."""
    while True:
        name = name.rpartition(".")[0]
        for key, parameter in model.named_parameters():
            if key.startswith(name and f"{name}.") and parameter.dtype in _DTYPES:
                return {"device": parameter.device, "dtype": parameter.dtype}
        if not name:
            return {}
