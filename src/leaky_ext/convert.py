"""Replace the activations of a model that exists by those of leaky_ext."""

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor, nn

from .modules import Bounds, LearnableLeakyReLU, StraightThroughReLU

Activation = nn.PReLU | nn.LeakyReLU | nn.ReLU
Rules = Mapping[type[nn.Module] | str, str | None]

_CONVERTIBLE = (nn.PReLU, nn.LeakyReLU, nn.ReLU)
_ZERO = {
    nn.PReLU: "alpha * g before, g now",
    nn.LeakyReLU: "negative_slope * g before, g now",
    nn.ReLU: "0 before, g now",
}


@dataclass(frozen=True)
class Conversion:
    """One activation that :func:`convert` replaced, or would replace."""

    names: tuple[str, ...]
    """Every name that the model knows it by: more than one where it is shared."""
    before: str
    after: str
    gradient_at_zero: str
    """How the gradient at inputs that are exactly 0 changes, for an incoming gradient g."""

    def __str__(self) -> str:
        return f"{', '.join(self.names)}: {self.before} -> {self.after}; gradient at x == 0: {self.gradient_at_zero}"


def convert(
    model: nn.Module,
    rules: Rules | None = None,
    *,
    alpha: float = 0.01,
    alpha_bounds: Bounds | None = None,
    dry_run: bool = False,
) -> list[Conversion]:
    """Replace activations of `model` in place, and return what was changed.

    ``convert(model)`` replaces every :class:`torch.nn.PReLU`. Outputs stay as they were, and so does training, except
    that an input of exactly 0 counts as positive here and as negative in :class:`torch.nn.PReLU`,
    :class:`torch.nn.LeakyReLU` and :class:`torch.nn.ReLU`: the gradient there is then ``g`` instead of ``alpha * g`` or
    0. Each :class:`Conversion` says so.

    Args:
        model: any module that holds the activations; one that *is* an activation cannot be replaced in place.
        rules: what to replace, and by what. A key is ``nn.PReLU``, ``nn.LeakyReLU`` or ``nn.ReLU`` (the type itself,
            not its subclasses), or a pattern such as ``"decoder.*"`` for the names of activations, as in
            :mod:`fnmatch`. A value is ``"learnable"`` for :class:`LearnableLeakyReLU`, ``"straight_through"`` for
            :class:`StraightThroughReLU`, or None for "leave it". The first pattern that matches wins, then the type.
            Default: ``{nn.PReLU: "learnable"}``.
        alpha: the slope that an :class:`torch.nn.ReLU` gets; the others keep their own. As a learnable slope 0.01
            changes the outputs, 0.0 does not.
        alpha_bounds: bounds of the slopes that are learned.
        dry_run: change nothing, only say what would be.

    An :class:`torch.nn.PReLU` hands its parameter on, the same object, so an optimizer that exists goes on with it. New
    slopes take dtype and device from the parameters around them, and should be made before the optimizer, DDP and FSDP
    are. Hooks, training mode and sharing are kept, and the `state_dict` of the old model still loads, also with
    ``strict=True``. ``inplace=True`` is kept, but not where a learned slope starts or is bounded at 0, from which the
    input cannot be rebuilt.

    Activations that a model calls as functions (``F.relu``) are no modules and cannot be found.

    Raises:
        ValueError: `model` is itself an activation that a rule asks to replace, a pattern matches no activation, or a
            rule's value is unknown.
    """
    rules = {nn.PReLU: "learnable"} if rules is None else rules
    for key, kind in rules.items():
        if kind not in ("learnable", "straight_through", None):
            raise ValueError(f"rules[{key!r}] must be 'learnable', 'straight_through' or None, got {kind!r}")
        if not isinstance(key, str) and key not in _CONVERTIBLE:
            raise ValueError(f"rules can name nn.PReLU, nn.LeakyReLU, nn.ReLU or a pattern, got {key!r}")
    found = _activations(model)
    for pattern in rules:
        if isinstance(pattern, str) and not any(fnmatchcase(name, pattern) for names, _ in found for name in names):
            raise ValueError(f"{pattern!r} matches no activation; there are {[names[0] for names, _ in found]}")

    done = []
    for names, old in found:
        kind = _rule(rules, names, old)
        if kind is None:
            continue
        if "" in names:
            raise ValueError(f"{old} is the model itself and cannot be replaced in place; make a {kind} one instead")
        new = _replacement(old, kind, alpha, alpha_bounds, _like(model, names[0]))
        done.append(Conversion(names, str(old), str(new), _ZERO[type(old)]))
        if not dry_run:
            _hand_over(old, new)
            for name in names:
                _put(model, name, new)
    return done


def _activations(model: nn.Module) -> list[tuple[tuple[str, ...], Activation]]:
    """Every activation, once, with all its names."""
    names: dict[int, list[str]] = {}
    modules: dict[int, Activation] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if type(module) in _CONVERTIBLE:
            modules[id(module)] = module
            names.setdefault(id(module), []).append(name)
    return [(tuple(names[key]), module) for key, module in modules.items()]


def _rule(rules: Rules, names: tuple[str, ...], module: nn.Module) -> str | None:
    for pattern, kind in rules.items():
        if isinstance(pattern, str) and any(fnmatchcase(name, pattern) for name in names):
            return kind
    return rules.get(type(module))


def _like(model: nn.Module, name: str) -> Tensor | None:
    """A floating parameter that a new slope at `name` takes device and dtype from: the nearest one around it."""
    path = name.split(".")
    for depth in range(len(path) - 1, -1, -1):
        for parameter in model.get_submodule(".".join(path[:depth])).parameters():
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


def _hand_over(old: Activation, new: nn.Module) -> None:
    """Training mode and hooks, in the same dictionaries, so that the handles that remove them still work."""
    new.train(old.training)
    for name, value in vars(old).items():
        if "hook" in name and name in vars(new):
            setattr(new, name, value)
    new.register_load_state_dict_pre_hook(_load_weight if isinstance(old, nn.PReLU) else _keep_alpha)


def _load_weight(module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """A PReLU saved its slope as `weight`."""
    if prefix + "weight" in state_dict:
        state_dict[prefix + "alpha"] = state_dict.pop(prefix + "weight")


def _keep_alpha(module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """A LeakyReLU or ReLU saved nothing: the slope stays what it is."""
    if isinstance(module.alpha, Tensor) and not module.alpha.is_meta:
        state_dict.setdefault(prefix + "alpha", module.alpha.detach())


def _put(model: nn.Module, name: str, new: nn.Module) -> None:
    parent_name, _, child = name.rpartition(".")
    parent = model.get_submodule(parent_name)
    setattr(parent, child, new)
    # nn.TransformerEncoderLayer decided when it was made whether its fused inference kernel may compute a ReLU.
    if isinstance(parent, nn.TransformerEncoderLayer) and isinstance(new, LearnableLeakyReLU):
        parent.activation_relu_or_gelu = 0
