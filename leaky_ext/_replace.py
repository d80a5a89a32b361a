"""Shared by `convert` and `revert`: finds activations, chooses among them by rules, and turns one into another."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from .modules import LearnableLeakyReLU, PReLU

Rules = Mapping[type[nn.Module] | str, str | None]
Names = tuple[str, ...]

_OPTIONS = (
    *("num_parameters", "init", "negative_slope", "inplace", "channel_dim", "save", "alpha_bounds", "learnable"),
    *("alpha", "loads_without"),
)
"""The attributes by which these modules, and PyTorch's, differ from any other module."""


@dataclass(frozen=True)
class Conversion:
    """One activation that :func:`convert` or :func:`revert` replaced, or would replace, or had to leave."""

    names: Names
    """Every name that the model knows it by, more than one where it is shared."""
    before: str
    after: str
    gradient_at_zero: str
    """How the gradient at inputs that are exactly 0 changes, for an incoming gradient g."""
    note: str = ""
    """What else changes."""
    skipped: str = ""
    """Why a module that the rules name stays as it is; empty if it was replaced."""

    def __str__(self) -> str:
        names = ", ".join(self.names)
        if self.skipped:
            return f"{names}: {self.before} stays: {self.skipped}"
        zero = f"gradient at x == 0: {self.gradient_at_zero}"
        return "; ".join([f"{names}: {self.before} -> {self.after}", zero, *filter(None, [self.note])])


class Found(NamedTuple):
    """An activation, once, with all its names."""

    names: Names
    module: Any
    type: type[nn.Module]
    """The type whose rule it comes under."""
    skipped: str = ""
    """Why it cannot be replaced."""

    def stays(self) -> Conversion:
        return Conversion(self.names, str(self.module), str(self.module), "", skipped=self.skipped)


def check_rules(rules: Rules, types: Sequence[type[nn.Module]], kinds: Sequence[str]) -> None:
    for key, kind in rules.items():
        if kind is not None and kind not in kinds:
            raise ValueError(f"rules[{key!r}] must be {', '.join(map(repr, kinds))} or None, got {kind!r}")
        if not isinstance(key, str) and key not in types:
            named = ", ".join(type_.__name__ for type_ in types)
            raise ValueError(f"rules can name {named} or a pattern, got {key!r}")


def check_patterns(rules: Rules, found: Sequence[Found]) -> None:
    for pattern in rules:
        if isinstance(pattern, str) and not any(fnmatchcase(name, pattern) for one in found for name in one.names):
            raise ValueError(f"{pattern!r} matches no activation; there are {[one.names[0] for one in found]}")


def rule(rules: Rules, found: Found) -> str | None:
    """The first pattern that matches one of the names, then the type."""
    for pattern, kind in rules.items():
        if isinstance(pattern, str) and any(fnmatchcase(name, pattern) for name in found.names):
            return kind
    return rules.get(found.type)


def find(model: nn.Module, types: Sequence[type[nn.Module]], besides: type[nn.Module] | tuple[()] = ()) -> list[Found]:
    """Every module of these types, also those that cannot be replaced, but for instances of `besides`."""
    found: dict[int, Found] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if id(module) in found:
            one = found[id(module)]
            found[id(module)] = one._replace(names=(*one.names, name))
        elif not isinstance(module, besides):
            type_ = next((type_ for type_ in types if _is_a(module, type_)), None)
            if type_ is not None:
                found[id(module)] = Found((name,), module, type_, _why_not(module, type_))
    return list(found.values())


def _is_a(module: nn.Module, type_: type[nn.Module]) -> bool:
    """Whether this is one, or is called one: scripted and quantized modules have the name of what they were."""
    if isinstance(module, type_):
        return True
    made_by_torch = isinstance(module, torch.jit.ScriptModule) or ".quantized" in type(module).__module__
    return made_by_torch and getattr(module, "original_name", type(module).__name__) == type_.__name__


def _why_not(module: nn.Module, type_: type[nn.Module]) -> str:
    """Why a module is not replaced; empty if it is."""
    if isinstance(module, torch.jit.ScriptModule):
        return "it is scripted: replace it before torch.jit.script"
    if is_parametrized(module):
        return "it is parametrized: call torch.nn.utils.parametrize.remove_parametrizations first"
    if any(name.endswith("_orig") for name in module._parameters):
        return "its slope is pruned: call torch.nn.utils.prune.remove first"
    if not isinstance(module, type_):
        return f"it is a {type(module).__module__}.{type(module).__name__}, which computes in another way"
    if type(module) is not type_:
        return f"its type {type(module).__name__} is a subclass of {type_.__name__}, and may compute something else"
    return ""


class SlopeKeys:
    """A load_state_dict pre-hook that fits the slope in what was saved before `revert`.

    It does not go into a pickled model, which so loads where there is no leaky_ext.
    """

    def __init__(self, fit: Callable[[Any, dict[str, Any], str], None]) -> None:
        self.fit = fit

    def __call__(self, module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
        self.fit(module, state_dict, prefix)

    def __deepcopy__(self, memo: dict[int, Any]) -> "SlopeKeys":
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, ("", "format")  # "".format: called, does nothing


def become(module: nn.Module, new: nn.Module) -> None:
    """Make `module` what `new` is: its class, options and parameters.

    It stays the same object, so names, sharing, hooks and whatever else refers to it go on.
    """
    for name in _OPTIONS:
        vars(module).pop(name, None)
    for name in ("weight", "alpha"):
        module._parameters.pop(name, None)
    module.__class__ = type(new)
    vars(module).update({name: value for name, value in vars(new).items() if name in _OPTIONS})
    for name, parameter in new._parameters.items():
        module.register_parameter(name, parameter)
    hooks: dict[int, Any] = module._load_state_dict_pre_hooks
    for key in [key for key, hook in hooks.items() if isinstance(hook.hook, SlopeKeys)]:
        del hooks[key]


def reset_containers(model: nn.Module) -> None:
    """Take back what transformers decided when they were made: that a fused kernel may compute their ReLU."""
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoderLayer) and _is_leaky(module):
            module.activation_relu_or_gelu = 0
        if isinstance(module, nn.TransformerEncoder) and any(_is_leaky(layer) for layer in module.layers):
            module.use_nested_tensor = module.enable_nested_tensor = False


def _is_leaky(layer: nn.Module) -> bool:
    return isinstance(getattr(layer, "activation", None), (PReLU, LearnableLeakyReLU))
