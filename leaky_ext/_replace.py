"""Shared by `convert` and `revert`: finds activations, chooses among them by rules, and replaces them."""

import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from .modules import LearnableLeakyReLU

Rules = Mapping[type[nn.Module] | str, str | None]
Names = tuple[str, ...]


@dataclass(frozen=True)
class Conversion:
    """One activation that :func:`convert` or :func:`revert` replaced, or would replace."""

    names: Names
    """Every name that the model knows it by, more than one where it is shared."""
    before: str
    after: str
    gradient_at_zero: str
    """How the gradient at inputs that are exactly 0 changes, for an incoming gradient g."""
    note: str = ""
    """What else changes."""

    def __str__(self) -> str:
        zero = f"gradient at x == 0: {self.gradient_at_zero}"
        return "; ".join([f"{', '.join(self.names)}: {self.before} -> {self.after}", zero, *filter(None, [self.note])])


def check_rules(rules: Rules, types: Sequence[type[nn.Module]], kinds: Sequence[str]) -> None:
    for key, kind in rules.items():
        if kind is not None and kind not in kinds:
            raise ValueError(f"rules[{key!r}] must be {', '.join(map(repr, kinds))} or None, got {kind!r}")
        if not isinstance(key, str) and key not in types:
            named = ", ".join(type_.__name__ for type_ in types)
            raise ValueError(f"rules can name {named} or a pattern, got {key!r}")


def check_patterns(rules: Rules, found: Sequence[Names]) -> None:
    for pattern in rules:
        if isinstance(pattern, str) and not any(fnmatchcase(name, pattern) for names in found for name in names):
            raise ValueError(f"{pattern!r} matches no activation; there are {[names[0] for names in found]}")


def rule(rules: Rules, names: Names, module: nn.Module) -> str | None:
    """The first pattern that matches one of the names, then the type."""
    for pattern, kind in rules.items():
        if isinstance(pattern, str) and any(fnmatchcase(name, pattern) for name in names):
            return kind
    return rules.get(type(module))


def find(model: nn.Module, types: Sequence[type[nn.Module]]) -> list[tuple[Names, Any]]:
    """Every module of exactly these types, once, with all its names."""
    names: dict[int, list[str]] = {}
    modules: dict[int, nn.Module] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if type(module) in types:
            modules[id(module)] = module
            names.setdefault(id(module), []).append(name)
    return [(tuple(names[key]), module) for key, module in modules.items()]


class SlopeKeys:
    """A load_state_dict pre-hook that renames the slope in what was saved before a replacement, or after it."""

    def __init__(self, fit: Callable[[Any, dict[str, Any], str], None], stays: bool = True) -> None:
        self.fit = fit
        self.stays = stays
        """In a pickled model. If not, the model can be loaded where there is no leaky_ext."""

    def __call__(self, module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
        self.fit(module, state_dict, prefix)

    def __deepcopy__(self, memo: dict[int, Any]) -> "SlopeKeys":
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return (SlopeKeys, (self.fit,)) if self.stays else (getattr, ("", "format"))  # "".format: called, does nothing


def put(model: nn.Module, names: Names, old: nn.Module, new: nn.Module, keys: SlopeKeys) -> None:
    """`new` under every name of `old`, with its training mode and its hooks.

    Hooks stay in the same dictionaries, so that the handles that remove them still work.
    """
    new.train(old.training)
    for name, value in vars(old).items():
        if "hook" in name and name in vars(new):
            setattr(new, name, value)
    hooks: dict[int, Any] = new._load_state_dict_pre_hooks
    for key, hook in list(hooks.items()):
        if isinstance(hook.hook, SlopeKeys):
            del hooks[key]
        elif hook.with_module:
            hook.module = weakref.ref(new)
    new.register_load_state_dict_pre_hook(keys)
    for name in names:
        parent_name, _, child = name.rpartition(".")
        parent = model.get_submodule(parent_name)
        setattr(parent, child, new)
        # nn.TransformerEncoderLayer decided when it was made whether its fused inference kernel may compute a ReLU.
        if isinstance(parent, nn.TransformerEncoderLayer) and isinstance(new, LearnableLeakyReLU):
            parent.activation_relu_or_gelu = 0
