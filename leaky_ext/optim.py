"""Parameter groups for optimizers: slopes without weight decay, and optionally with their own learning rate."""

from typing import Any

from torch import Tensor, nn

from .modules import Slope, check_module


def parameter_groups(
    model: nn.Module, weight_decay: float = 0.0, alpha_lr: float | None = None
) -> list[dict[str, Any]]:
    """Return parameter groups for a :mod:`torch.optim` optimizer. Each parameter of `model` is in exactly one group.

    Slopes get no weight decay, because it pulls them to 0 and turns leaky ReLU into ReLU.

    Args:
        model: its slopes are the parameters of :class:`LearnableLeakyReLU`, :class:`StraightThroughReLU` and
            :class:`torch.nn.PReLU`. If a slope is parametrized or pruned, they are the parameters that the slope is
            computed from.
        weight_decay: weight decay of all parameters that are not slopes.
        alpha_lr: learning rate of the slopes. Default: the learning rate of the optimizer.

    Returns:
        The group of all other parameters, then the group of slopes. A group is left out if it is empty. Frozen
        parameters are included, so that they can be unfrozen later.

    Raises:
        ValueError: a slope is part of a larger parameter, as in FSDP1 without `use_orig_params`.

    Example::

        torch.optim.AdamW(leaky_ext.parameter_groups(model, weight_decay=0.05, alpha_lr=1e-4), lr=1e-3)
    """
    check_module(model)
    if weight_decay or alpha_lr is not None:
        for name, module in model.named_modules():
            _check_own(name, module)
    slopes = list({id(p): p for module in model.modules() for p in slope_parameters(module)}.values())
    ids = {id(p) for p in slopes}
    groups: list[dict[str, Any]] = [
        {"params": [p for p in model.parameters() if id(p) not in ids], "weight_decay": weight_decay},
        {"params": slopes, "weight_decay": 0.0} | ({} if alpha_lr is None else {"lr": alpha_lr}),
    ]
    return [group for group in groups if group["params"]]


def slope_parameters(module: nn.Module) -> list[nn.Parameter]:
    """Return the slopes of a module. If they are parametrized or pruned, return the parameters behind them."""
    if not isinstance(module, (Slope, nn.PReLU)):
        return []
    return [p for name, p in module.named_parameters() if "." not in name or name.startswith("parametrizations.")]


def _check_own(name: str, module: nn.Module) -> None:
    """Raise ValueError if a trainable slope is part of a parameter of another module."""
    slope = getattr(module, getattr(module, "slope_name", "weight"), None)
    is_slope = isinstance(module, (Slope, nn.PReLU)) and isinstance(slope, Tensor) and slope.requires_grad
    if is_slope and not slope_parameters(module):
        raise ValueError(
            f"the slope of {name!r} is part of a larger parameter and cannot have its own weight decay or learning "
            "rate: pass use_orig_params=True to FullyShardedDataParallel"
        )
