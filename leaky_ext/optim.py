"""Slopes in an optimizer: no weight decay, and a learning rate of their own if wanted."""

from typing import Any

from torch import Tensor, nn

from .modules import Slope


def parameter_groups(
    model: nn.Module, weight_decay: float = 0.0, alpha_lr: float | None = None
) -> list[dict[str, Any]]:
    """Parameter groups for any :mod:`torch.optim` optimizer, every parameter of `model` in exactly one.

    Weight decay pulls a slope to 0 and so turns leaky ReLU back into ReLU; slopes get none.

    Args:
        model: its slopes are the parameters of :class:`LearnableLeakyReLU`, :class:`StraightThroughReLU` and
            :class:`torch.nn.PReLU`; of a slope that is parametrized or pruned, those that it is computed from.
        weight_decay: of all parameters that are not slopes.
        alpha_lr: learning rate of the slopes. Default: the optimizer's.

    Returns:
        The group of all other parameters and the group of slopes, in this order, each only if it is not empty. Frozen
        parameters are included, so that they can be unfrozen later.

    Raises:
        ValueError: a slope is a part of a larger parameter, as in FSDP1 without `use_orig_params`.

    Example::

        torch.optim.AdamW(leaky_ext.parameter_groups(model, weight_decay=0.05, alpha_lr=1e-4), lr=1e-3)
    """
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
    """A module's slopes, or, if they are parametrized or pruned, the parameters that they are computed from."""
    if not isinstance(module, (Slope, nn.PReLU)):
        return []
    return [p for name, p in module.named_parameters() if "." not in name or name.startswith("parametrizations.")]


def _check_own(name: str, module: nn.Module) -> None:
    """Raise if a slope that is trained is a part of some other module's parameter."""
    slope = getattr(module, getattr(module, "slope_name", "weight"), None)
    is_slope = isinstance(module, (Slope, nn.PReLU)) and isinstance(slope, Tensor) and slope.requires_grad
    if is_slope and not slope_parameters(module):
        raise ValueError(
            f"the slope of {name!r} is a part of a larger parameter, and cannot have a weight decay or learning rate "
            "of its own: give FullyShardedDataParallel use_orig_params=True"
        )
