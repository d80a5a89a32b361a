"""Train a small convolutional net on scikit-learn's digits with five activations, over several seeds.

    pip install scikit-learn matplotlib rich
    python examples/digits.py

Prints a table, and writes it beside this file as `digits.md`, every run as `digits.csv` and a figure as `digits.png`.
With the same seed all activations start from the same weights and see the same batches.
"""

import argparse
import csv
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, stdev

import torch
from matplotlib.figure import Figure
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import leaky_ext

ACTIVATIONS: dict[str, Callable[[int], nn.Module]] = {
    "ReLU": lambda channels: nn.ReLU(),
    "leaky ReLU, 0.01": lambda channels: nn.LeakyReLU(0.01),
    "learnable, shared": lambda channels: leaky_ext.LearnableLeakyReLU(init=0.01),
    "learnable, per channel": lambda channels: leaky_ext.LearnableLeakyReLU(channels, init=0.01),
    "straight-through, 0.01": lambda channels: leaky_ext.StraightThroughReLU(0.01),
}


@dataclass
class Run:
    activation: str
    seed: int
    accuracy: float  # of the test images, percent
    loss: float  # of the training batches of the last epoch, mean
    dead: float  # units that a batch of the last epoch does not switch on, percent, mean over batches and layers
    alpha: float  # slopes at the end, mean, least and greatest over the four activations
    alpha_min: float
    alpha_max: float


def net(activation: Callable[[int], nn.Module]) -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), activation(16), nn.Conv2d(16, 32, 3, padding=1), activation(32)),
        *(nn.MaxPool2d(2), nn.Conv2d(32, 32, 3, padding=1), activation(32), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(128, 64), activation(64), nn.Linear(64, 10)),
    )


def images() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Pixels in [0, 1] as [N, 1, 8, 8] and labels, of 1,347 training and 450 test images."""
    data = load_digits()
    parts = train_test_split(data.images / 16.0, data.target, test_size=0.25, random_state=0, stratify=data.target)
    x, x_test, target, target_test = (torch.as_tensor(part) for part in parts)
    return x.float().unsqueeze(1), target, x_test.float().unsqueeze(1), target_test


def train(name: str, seed: int, epochs: int, lr: float) -> tuple[Run, list[dict]]:
    """One run, and the rows of its AlphaMonitor."""
    x, target, x_test, target_test = images()
    torch.manual_seed(seed)
    model = net(ACTIVATIONS[name])
    monitor = leaky_ext.AlphaMonitor(model)
    optimizer = torch.optim.AdamW(leaky_ext.parameter_groups(model, weight_decay=0.01), lr=lr)
    batches = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        losses = []
        for batch in torch.randperm(len(x), generator=batches).split(64):
            loss = cross_entropy(model(x[batch]), target[batch])
            loss.backward()
            optimizer.step()
            monitor.step()
            optimizer.zero_grad()
            losses.append(loss.detach())
    model.eval()
    with torch.no_grad():
        accuracy = (model(x_test).argmax(1) == target_test).double().mean().item()
    rows = monitor.rows()
    last_epoch = [row for row in rows if row["step"] > rows[-1]["step"] - len(losses)]
    end = [row for row in rows if row["step"] == rows[-1]["step"]]
    run = Run(
        activation=name,
        seed=seed,
        accuracy=100 * accuracy,
        loss=torch.stack(losses).mean().item(),
        dead=100 * mean(row["dead"] for row in last_epoch),
        alpha=mean(row["alpha_mean"] for row in end),
        alpha_min=min(row["alpha_min"] for row in end),
        alpha_max=max(row["alpha_max"] for row in end),
    )
    return run, rows


def table(runs: list[Run]) -> str:
    """Over the seeds, as Markdown; of the slopes the mean, and the least and greatest of all."""
    lines = [
        "| activation | test accuracy, % | training loss | dead units, % | slopes at the end |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name in ACTIVATIONS:
        own = [run for run in runs if run.activation == name]
        cells = [name]
        for column, form in {"accuracy": ".2f", "loss": ".4f", "dead": ".1f"}.items():
            values = [getattr(run, column) for run in own]
            cells.append(f"{mean(values):{form}}" + (f" ± {stdev(values):{form}}" if len(own) > 1 else ""))
        least, most = min(run.alpha_min for run in own), max(run.alpha_max for run in own)
        slopes = f"{mean(run.alpha for run in own):.3f}"
        cells.append(slopes if least == most else f"{slopes} ({least:.3f} to {most:.3f})")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def figure(runs: list[Run], rows: dict[str, list[dict]]) -> Figure:
    """Accuracy of every run; of the first seed, dead units and slopes over the steps."""
    result = Figure(figsize=(14, 4), layout="constrained")
    accuracy, dead, slopes = result.subplots(1, 3)
    for i, name in enumerate(ACTIVATIONS):
        values = [run.accuracy for run in runs if run.activation == name]
        accuracy.plot([i] * len(values), values, "o", alpha=0.4, color=f"C{i}")
        accuracy.plot([i - 0.25, i + 0.25], [mean(values)] * 2, color=f"C{i}", linewidth=2)
        layers: dict[str, list[dict]] = {}
        for row in rows[name]:
            layers.setdefault(row["name"], []).append(row)
        steps = range(1, len(rows[name]) // len(layers) + 1)
        dead.plot(
            steps, [100 * mean(r["dead"] for r in step) for step in zip(*layers.values(), strict=True)], label=name
        )
        if name.startswith("learnable"):
            for depth, own in enumerate(layers.values()):
                slopes.plot(steps, [r["alpha_mean"] for r in own], color=f"C{i}", label=None if depth else name)
                ends = [[r[end] for r in own] for end in ("alpha_min", "alpha_max")]
                slopes.fill_between(steps, *ends, color=f"C{i}", alpha=0.12, linewidth=0)
    accuracy.set_xticks(range(len(ACTIVATIONS)), [name.replace(", ", ",\n") for name in ACTIVATIONS], fontsize=7)
    accuracy.set(title="test accuracy: each seed, and the mean", ylabel="%")
    dead.set(title="dead units in a batch, first seed", xlabel="step", ylabel="%")
    slopes.set(title="slopes of the four activations, first seed", xlabel="step")
    dead.set_ylim(0, 1.45 * dead.dataLim.ymax)  # room for the legend
    dead.legend(fontsize="small", loc="upper right")
    slopes.legend(fontsize="small", loc="upper left")
    return result


def main(argv: list[str] | None = None) -> list[Run]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=15, help="passes over the training images (default: %(default)s)")
    parser.add_argument("--lr", type=float, default=3e-3, help="learning rate of AdamW (default: %(default)s)")
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent, help="folder of the results (default: this file's)"
    )
    args = parser.parse_args(argv)

    torch.set_num_threads(1)  # the images are so small that a second thread only waits
    runs: list[Run] = []
    rows: dict[str, list[dict]] = {}
    columns = (TextColumn("{task.description:<24}"), BarColumn(), MofNCompleteColumn(), TextColumn("runs"))
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn()) as progress:
        task = progress.add_task("", total=args.seeds * len(ACTIVATIONS))
        for seed in range(args.seeds):
            for name in ACTIVATIONS:
                progress.update(task, description=name)
                run, watched = train(name, seed, args.epochs, args.lr)
                runs.append(run)
                rows.setdefault(name, watched)  # the first seed's
                progress.advance(task)

    report = table(runs) + (
        f"\n\nMean ± standard deviation over {args.seeds} seeds; {args.epochs} epochs of AdamW at {args.lr:g}, "
        f"torch {torch.__version__}.\n"
    )
    print(report)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "digits.md").write_text(report)
    with open(args.out / "digits.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(asdict(runs[0])))
        writer.writeheader()
        writer.writerows(asdict(run) for run in runs)
    figure(runs, rows).savefig(args.out / "digits.png", dpi=120)
    return runs


if __name__ == "__main__":
    main()
