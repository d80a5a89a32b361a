"""Replaces activations in a model according to rules. Used by `convert` and `revert`."""

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import filter as filter_names
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ._fx_calls import Call
from .modules import Slope, StraightThroughReLU

Rules = Mapping[type[nn.Module] | str, str | None]
Kinds = Mapping[type[nn.Module], Sequence[str]]
Make = Callable[[Any, str, str], tuple[nn.Module, str, str]]
"""Takes a module, the kind of replacement and the module's name.

Returns the new module, and `gradient_at_zero` and `note` of the :class:`Conversion`.
"""

# The attributes of activations, ours and PyTorch's, that a plain nn.Module does not have.
_OPTIONS = ["num_parameters", "init", "negative_slope", "inplace", "channel_dim", "save", "alpha_bounds"]
_OPTIONS += ["learnable", "loads_without", "alpha"]


@dataclass(frozen=True)
class Conversion:
    """One activation that :func:`convert` or :func:`revert` replaced, would replace (`dry_run`) or cannot replace.

    Attributes:
        names: every name of the module in the model; more than one if the module is shared. For a function call, the
            name of the module that replaces it. A call that was not replaced gets such a name too.
        before, after: the text representation of the module before and after. For a function call that was not
            replaced, the call as it is in the graph.
        gradient_at_zero: the gradient at x == 0 before and after, for an incoming gradient g.
        note: other changes.
        skipped: the reason why the activation was not replaced; empty if it was replaced.
    """

    names: tuple[str, ...]
    before: str
    after: str
    gradient_at_zero: str
    note: str = ""
    skipped: str = ""

    def __str__(self) -> str:
        names = ", ".join(self.names)
        if self.skipped:
            return f"{names}: {self.before} stays: {self.skipped}"
        zero = f"gradient at x == 0: {self.gradient_at_zero}"
        return "; ".join([f"{names}: {self.before} -> {self.after}", zero, *filter(None, [self.note])])


def replace(
    model: nn.Module, rules: Rules, kinds: Kinds, make: Make, calls: Sequence[Call], dry_run: bool
) -> list[Conversion]:
    """Replace the modules whose type is in `kinds`, and the modules of `calls`, by the result of `make`."""
    every = list(dict.fromkeys(chain(*kinds.values())))
    for key, kind in rules.items():
        if kind not in (*every, None):
            raise ValueError(f"rules[{key!r}] must be {', '.join(map(repr, every))} or None, got {kind!r}")
        if not isinstance(key, str) and key not in kinds:
            raise ValueError(f"rules can name {', '.join(t.__name__ for t in kinds)} or a pattern, got {key!r}")
    found: dict[nn.Module, list[str]] = {}
    called = ((call.name, call.module) for call in calls)
    for name, module in chain(model.named_modules(remove_duplicate=False), called):
        if _type(module, kinds) is not None:
            found.setdefault(module, []).append(name)
    patterns = [key for key in rules if isinstance(key, str)]
    for pattern in patterns:
        if not filter_names(chain(*found.values()), pattern):
            raise ValueError(f"{pattern!r} matches no activation; there are {[names[0] for names in found.values()]}")

    fused = {child for m in model.modules() if ".intrinsic" in type(m).__module__ for child in m.children()}
    left: dict[nn.Module, Call] = {call.module: call for call in calls if call.skipped}
    done, planned = [], []
    for old, names in found.items():
        type_ = _type(old, kinds)
        kind = rules.get(next((pattern for pattern in patterns if filter_names(names, pattern)), type_))
        if kind is None:
            continue
        new, zero, note, call = old, "", "", left.get(old)
        skipped = call.skipped if call else _why_not(old, type_, old in fused)
        if not skipped:
            if kind not in kinds[type_]:
                right = " or ".join(map(repr, kinds[type_]))
                raise ValueError(f"{names[0]!r} is a {old}: {right} is the rule for it, not {kind!r}")
            new, zero, note = make(old, kind, names[0])
            planned.append((old, new))
        before, after = (str(call), str(call)) if call else (str(old), str(new))
        done.append(Conversion(tuple(names), before, after, zero, note, skipped))
    if not dry_run:
        for old, new in planned:
            _become(old, new)
        _reset_containers(model, {old for old, _ in planned})
    return done


def _type(module: nn.Module, types: Iterable[type[nn.Module]]) -> Any:
    """Return the first of `types` whose name a base class of `module` has, or None.

    Types are compared by name because scripted and quantized modules only keep the name of the original type.
    """
    names = {type_.__name__ for type_ in type(module).__mro__} | {getattr(module, "original_name", None)}
    ours, any_of = isinstance(module, Slope), isinstance(module, torch.jit.ScriptModule)
    return next((t for t in types if t.__name__ in names and (any_of or issubclass(t, Slope) == ours)), None)


def _why_not(module: nn.Module, type_: type[nn.Module], is_fused: bool) -> str:
    """Return the reason why a module cannot be replaced, or an empty string if it can."""
    own, slope = type(module), getattr(module, "slope_name", "weight")
    is_tensor = isinstance(module, type_) and isinstance(getattr(module, slope, None), Tensor)
    computed = is_tensor and slope not in module._parameters
    reasons = {
        "it is scripted: replace it before torch.jit.script": isinstance(module, torch.jit.ScriptModule),
        "its slope is computed (parametrized, pruned, weight_norm, FSDP): first call, for example, "
        "torch.nn.utils.parametrize.remove_parametrizations or prune.remove": computed,
        f"its type {own.__module__}.{own.__name__} is a subclass of {type_.__name__} or another class of that name, "
        "and may compute something else": own is not type_,
        "it is fused for quantization: replace it before torch.ao.quantization.fuse_modules": is_fused,
        "its forward was replaced (by accelerate, for example): replace it after this call": "forward" in vars(module),
        "its slope has no shape yet: run a forward first": any(map(is_lazy, module.parameters())),
    }
    return next((reason for reason, holds in reasons.items() if holds), "")


def _become(module: nn.Module, new: nn.Module) -> None:
    """Give `module` the class, options and parameters of `new`.

    `module` stays the same object, so its names, its hooks and all references to it stay valid.
    """
    if isinstance(module, Slope):  # PyTorch's modules have no bounds
        module.project_()
        hooks: Any = module._load_state_dict_pre_hooks.values()
        if not any(isinstance(hook.hook, SlopeKeys) for hook in hooks):
            module.register_load_state_dict_pre_hook(SlopeKeys())
    for name in ("weight", *_OPTIONS):
        module._parameters.pop(name, None)
        vars(module).pop(name, None)
    module.__class__ = type(new)
    vars(module).update({name: value for name, value in vars(new).items() if name in _OPTIONS})
    for name, parameter in new._parameters.items():
        module.register_parameter(name, parameter)


def _reset_containers(model: nn.Module, changed: set[nn.Module]) -> None:
    """Update the flags of transformer modules that allow a fused kernel to compute their ReLU.

    nn.TransformerEncoder and its layers set these flags in __init__ only.
    """
    for module in reversed(list(model.modules())):  # layers before their encoder
        if isinstance(module, nn.TransformerEncoderLayer) and module.activation in changed:
            decided = vars(module).setdefault("_fused_as_made", module.activation_relu_or_gelu)
            is_relu = isinstance(module.activation, (nn.ReLU, StraightThroughReLU))
            module.activation_relu_or_gelu = decided if is_relu else 0
        elif isinstance(module, nn.TransformerEncoder) and not changed.isdisjoint(module.modules()):
            decided = vars(module).setdefault("_nested_as_made", getattr(module, "use_nested_tensor", False))
            module.use_nested_tensor = decided and all(layer.activation_relu_or_gelu for layer in module.layers)


class SlopeKeys:
    """Lets reverted modules load a state_dict that was saved before `revert`: a load_state_dict pre-hook.

    Pickling drops the hook, so that a pickled model loads without leaky_ext. Models that version 0.2 pickled create the
    hook with an argument.
    """

    def __init__(self, fit: None = None) -> None:
        pass

    def __call__(self, module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
        keys = [] if isinstance(module, Slope) else [prefix + "weight", prefix + "alpha"]
        for slope in [state_dict.pop(key) for key in keys if key in state_dict]:
            if isinstance(module, nn.PReLU):
                state_dict[prefix + "weight"] = slope
            elif isinstance(module, nn.LeakyReLU) and not slope.is_meta:
                module.negative_slope = slope.item()

    def __deepcopy__(self, memo: dict[int, Any]) -> "SlopeKeys":
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, (contextlib.nullcontext(), "__exit__")  # accepts any arguments and does nothing
