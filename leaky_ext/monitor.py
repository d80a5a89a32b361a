"""Records slopes and inputs of activations while a model trains."""

import csv
import warnings
from collections import deque
from os import PathLike
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.compiler import is_compiling

from .modules import Bounds, Slope, check_module
from .optim import slope_parameters
from .torch_private import is_exporting, is_tracing, transforms_active

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = ("alpha_min", "alpha_mean", "alpha_max", "grad_norm", "negative", "dead")
_PANELS = {
    "alpha_mean": "slope",
    "grad_norm": "2-norm of the slope's gradient",
    "negative": "share of negative inputs",
    "dead": "share of dead units",
}
_WATCHED = (Slope, nn.PReLU, nn.LeakyReLU, nn.ReLU)


class AlphaMonitor:
    """Record slopes and inputs of every activation of a model at each step.

    The monitor supports :class:`PReLU`, :class:`LearnableLeakyReLU`, :class:`StraightThroughReLU` and, for comparison,
    :class:`torch.nn.PReLU`, :class:`torch.nn.LeakyReLU` and :class:`torch.nn.ReLU`. It records one row per step and
    activation:

    - ``step``: the number of the step, from 1; ``name``: the name of the module;
    - ``alpha_min``, ``alpha_mean``, ``alpha_max``: of the slopes that the next forward uses;
    - ``grad_norm``: the 2-norm of the gradient of the slopes, or of the parameters that the slopes are computed from;
      NaN if there is no gradient;
    - ``negative``: the share of input elements that are negative;
    - ``dead``: the share of units (indices of the channel dimension) with only negative inputs in a batch. ReLU outputs
      only zeros for such a unit, and the unit learns nothing from the batch.

    Both shares are averages over the forwards since the last step, in training mode and in this process. Forwards that
    are exported, traced or inside a `torch.func` transform do not count. The shares cost a pass over the input; set
    `every` to record fewer steps. The numbers are copied to the host asynchronously: :meth:`rows`, and the methods that
    use it, wait for them.

    Args:
        model: the model. Activations that are added later are not recorded.
        bounds: ``(low, high)``: warn if a slope leaves these bounds. A slope that is not finite always gives a warning.
            On CUDA the warning may come a step later, after the numbers have arrived.
        every: record only each `every`-th step.

    Example::

        monitor = AlphaMonitor(model, bounds=(0.0, 1.0))
        for x, target in batches:
            loss_fn(model(x), target).backward()
            optimizer.step()
            monitor.step()  # before zero_grad, which drops the gradients
            optimizer.zero_grad()
        monitor.plot().savefig("slopes.png")

    Under FSDP2 and tensor parallelism, where slopes are sharded, call :meth:`step` on every rank.
    """

    def __init__(self, model: nn.Module, bounds: Bounds | None = None, every: int = 1) -> None:
        check_module(model)
        if every < 1:
            raise ValueError(f"every must be at least 1, got {every}")
        self.bounds, self.every = bounds, every
        self._step, self._due, self._written = 0, every == 1, 0
        self._modules = {name: module for name, module in model.named_modules() if isinstance(module, _WATCHED)}
        # For each module: the sums of both shares, and the number of calls.
        self._sums = {name: _zeros("cpu") for name in self._modules}
        self._hooks = [m.register_forward_pre_hook(_Hook(self, n), with_kwargs=True) for n, m in self._modules.items()]
        self._arriving: deque[tuple[int, Tensor, Any]] = deque()
        self._rows: list[dict[str, Any]] = []
        self._outside: set[str] = set()

    def step(self) -> None:
        """Record a step. Call this after backward and before the gradients are set to zero."""
        self._step += 1
        if self._due and self._modules:
            rows = [self._numbers(name, module) for name, module in self._modules.items()]
            device = next((row.device for row in rows if row.is_cuda), rows[0].device)
            numbers = torch.stack([row.to(device, non_blocking=True) for row in rows])
            event = None
            if numbers.is_cuda:
                host = torch.empty(numbers.shape, pin_memory=True)
                numbers, event = host.copy_(numbers, non_blocking=True), torch.cuda.Event()
                event.record(torch.cuda.current_stream(device))
            self._arriving.append((self._step, numbers, event))
        self._due = (self._step + 1) % self.every == 0
        self._collect()

    def rows(self) -> list[dict[str, Any]]:
        """Return one dict per step and activation. Waits for numbers that are still being copied."""
        self._collect(wait=True)
        return list(self._rows)

    def write_csv(self, path: str | PathLike[str]) -> None:
        """Write :meth:`rows` to a CSV file, with a header."""
        with open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, ("step", "name", *COLUMNS))
            writer.writeheader()
            writer.writerows(self.rows())

    def write_tensorboard(self, writer: Any) -> None:
        """Write the rows since the last call to a :class:`torch.utils.tensorboard.SummaryWriter`."""
        rows = self.rows()
        for row in rows[self._written :]:
            for column in COLUMNS:
                if row[column] == row[column]:
                    writer.add_scalar(f"{row['name']}/{column}", row[column], row["step"])
        self._written = len(rows)

    def plot(self) -> "Figure":
        """Return a matplotlib figure over the steps: slopes (mean, minimum to maximum), gradient norm, both shares."""
        from matplotlib.figure import Figure

        figure, rows = Figure(figsize=(10, 6), layout="constrained"), self.rows()
        figure.supxlabel("step")
        for panel, (column, title) in zip(figure.subplots(2, 2, sharex=True).flat, _PANELS.items(), strict=True):
            panel.set_title(title)
            for name in self._modules:
                own = [row for row in rows if row["name"] == name]
                steps = [row["step"] for row in own]
                (line,) = panel.plot(steps, [row[column] for row in own], label=name)
                if column == "alpha_mean":
                    band = [[row[c] for row in own] for c in ("alpha_min", "alpha_max")]
                    panel.fill_between(steps, *band, color=line.get_color(), alpha=0.2, linewidth=0)
        if 0 < len(self._modules) <= 12:
            figure.axes[0].legend(fontsize="small")
        return figure

    def remove(self) -> None:
        """Stop recording. The recorded rows stay available."""
        for hook in self._hooks:
            hook.remove()

    def _observe(self, name: str, module: nn.Module, x: Tensor) -> None:
        if not (self._due and module.training and isinstance(x, Tensor)):  # torch.fx calls hooks with proxies
            return
        # An exported or traced program must not contain the monitor. The monitor must not keep a tensor of a transform.
        if is_exporting() or transforms_active() or (not is_compiling() and is_tracing()):
            return
        x = _plain(x.detach(), "to_local")
        if x.numel() == 0:
            return
        negative = ~(x >= 0)
        dim = getattr(module, "channel_dim", 1)
        units = negative.movedim(dim, 0) if -x.ndim <= dim < x.ndim else negative[None]
        dead = units.reshape(units.shape[0], -1).all(1)
        shares = [negative.sum() / x.numel(), dead.sum() / dead.numel()]
        if self._sums[name].device != x.device:
            self._sums[name] = _zeros(x.device)
        self._sums[name] += torch.stack([*shares, torch.ones_like(shares[0])])

    @torch.no_grad()
    def _numbers(self, name: str, module: nn.Module) -> Tensor:
        sums = self._sums[name]
        self._sums[name] = _zeros(sums.device)
        fixed = getattr(module, "negative_slope", 0.0)
        alpha: Any = module.slope() if isinstance(module, Slope) else getattr(module, "weight", fixed)
        values = _plain(alpha, "full_tensor").float() if isinstance(alpha, Tensor) else sums.new_full((1,), alpha)
        grads = [p.grad for p in slope_parameters(module) if p.grad is not None]
        grads = [_plain(grad, "full_tensor").float().flatten() for grad in grads]
        norm = torch.cat(grads).norm() if grads else values.new_full((), float("nan"))
        shares = (sums[:2] / sums[2]).to(values.device, non_blocking=True)
        return torch.cat([torch.stack([values.min(), values.mean(), values.max(), norm]), shares])

    def _collect(self, wait: bool = False) -> None:
        while self._arriving:
            step, numbers, event = self._arriving[0]
            if event is not None:
                if wait:
                    event.synchronize()
                elif not event.query():
                    return
            self._arriving.popleft()
            for name, values in zip(self._modules, numbers.tolist(), strict=True):
                self._rows.append({"step": step, "name": name} | dict(zip(COLUMNS, values, strict=True)))
                self._warn(self._rows[-1])

    def _warn(self, row: dict[str, Any]) -> None:
        """Warn once when a slope leaves the bounds. Warn again only if it has been inside since."""
        low, high = self.bounds or (-float("inf"), float("inf"))
        least, most, name = row["alpha_min"], row["alpha_max"], row["name"]
        finite = abs(least) < float("inf") and abs(most) < float("inf")
        if finite and low <= least and most <= high:
            self._outside.discard(name)
        elif name not in self._outside:
            self._outside.add(name)
            what = f"left the bounds {self.bounds}" if finite else "is not finite"
            warnings.warn(f"step {row['step']}: slope of {name!r} {what}: [{least:g}, {most:g}]", stacklevel=4)


class _Hook:
    """Records the input of one activation. In a copied or unpickled model the hook does nothing."""

    def __init__(self, monitor: AlphaMonitor | None, name: str) -> None:
        self.monitor, self.name = monitor, name

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self.monitor is not None:
            self.monitor._observe(self.name, module, args[0] if args else kwargs["input"])

    def __reduce__(self) -> tuple[Any, ...]:
        return _Hook, (None, self.name)


@torch.inference_mode(False)
def _zeros(device: Any) -> Tensor:
    """Return zeros that are not an inference tensor, so that later forwards can add to them."""
    return torch.zeros(3, device=device)


def _plain(x: Any, method: str) -> Tensor:
    """Return the result of `method` ("to_local" or "full_tensor") for a DTensor, and any other tensor unchanged."""
    return getattr(x, method)() if hasattr(x, method) else x
