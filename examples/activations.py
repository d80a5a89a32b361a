"""Train two networks with five activations and two variants, over several seeds, and draw the page about it.

    pip install matplotlib rich scipy tensorboard
    python examples/activations.py                       # trains: docs/experiment.md says how long it took
    python examples/activations.py --draw                # draws pictures and tables anew from the committed results
    python examples/activations.py --tensorboard runs    # and logs slopes, gradients and dead units for TensorBoard

With the same seed all activations start from the same weights and see the same batches.
"""

import argparse
import csv
import platform
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import mean
from typing import Any

import report
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from tasks import Activation, characters, convnet, narrow_net, wave
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss

import leaky_ext

ACTIVATIONS: dict[str, Activation] = {
    "ReLU": lambda channels: nn.ReLU(),
    "leaky ReLU, 0.01": lambda channels: nn.LeakyReLU(0.01),
    "straight-through, 0.01": lambda channels: leaky_ext.StraightThroughReLU(0.01),
    "learnable, shared": lambda channels: leaky_ext.LearnableLeakyReLU(init=0.01),
    "learnable, per channel": lambda channels: leaky_ext.LearnableLeakyReLU(channels, init=0.01),
    "the same, in [0, 1]": lambda channels: leaky_ext.LearnableLeakyReLU(channels, init=0.01, alpha_bounds=(0, 1)),
    "the same, 10 x rate": lambda channels: leaky_ext.LearnableLeakyReLU(channels, init=0.01),
}
WATCHED = ("step", "name", "alpha_min", "alpha_mean", "alpha_max", "dead")


@dataclass
class Run:
    task: str
    activation: str
    seed: int
    score: float  # percent; characters: accuracy on the test images, wave: explained share of the variance
    loss: float  # of the last batches of training, mean
    dead: float  # units that a batch near the end does not switch on, percent, mean over layers
    alpha: float  # slopes at the end: mean, least and greatest over the layers
    alpha_min: float
    alpha_max: float
    seconds: float  # of processor time


@dataclass
class Task:
    net: Callable[[Activation], nn.Module]
    loss: Callable[[Tensor, Tensor], Tensor]
    batches: Callable[[int], Iterator[tuple[Tensor, Tensor]]]
    score: Callable[[nn.Module], Tensor]
    rate: float
    seeds: int
    every: int  # steps between two records of the monitor


def tasks(args: argparse.Namespace) -> dict[str, Task]:
    x, target = characters(args.images, seed=0)
    x_test, target_test = characters(4000, seed=1)
    points, values = wave()

    def image_batches(seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(seed)
        for _ in range(args.epochs):
            for batch in torch.randperm(len(x), generator=generator).split(64):
                yield x[batch], target[batch]

    def accuracy(net: nn.Module) -> Tensor:
        return (net(x_test).argmax(1) == target_test).double().mean()

    def explained(net: nn.Module) -> Tensor:
        return 1 - (net(points) - values).square().mean() / values.var(correction=0)

    def repeated(seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        return iter([(points, values)] * args.steps)

    return {
        "characters": Task(convnet, cross_entropy, image_batches, accuracy, 2e-3, args.seeds, 20),
        "wave": Task(narrow_net, mse_loss, repeated, explained, 3e-3, args.narrow_seeds, 100),
    }


def train(name: str, task: Task, activation: str, seed: int) -> tuple[Run, leaky_ext.AlphaMonitor]:
    start = time.process_time()
    torch.manual_seed(seed)
    net = task.net(ACTIVATIONS[activation])
    monitor = leaky_ext.AlphaMonitor(net, every=task.every)
    alpha_lr = 10 * task.rate if activation.endswith("10 x rate") else task.rate
    optimizer = torch.optim.AdamW(
        leaky_ext.parameter_groups(net, weight_decay=0.01, alpha_lr=alpha_lr), lr=task.rate, foreach=True
    )
    losses = []
    for x, target in task.batches(seed):
        loss = task.loss(net(x), target)
        loss.backward()
        optimizer.step()
        monitor.step()
        optimizer.zero_grad()
        losses.append(loss.detach())
    net.eval()
    with torch.no_grad():
        score = task.score(net).item()
    rows = monitor.rows()
    end = [row for row in rows if row["step"] == rows[-1]["step"]]
    run = Run(
        task=name,
        activation=activation,
        seed=seed,
        score=100 * score,
        loss=torch.stack(losses[-task.every :]).mean().item(),
        dead=100 * mean(row["dead"] for row in end),
        alpha=mean(row["alpha_mean"] for row in end),
        alpha_min=min(row["alpha_min"] for row in end),
        alpha_max=max(row["alpha_max"] for row in end),
        seconds=time.process_time() - start,
    )
    return run, monitor


def train_all(args: argparse.Namespace) -> None:
    """Trains all runs. Writes each run to runs.csv when it ends, and slopes.csv and monitor.svg for the first seed."""
    args.out.mkdir(parents=True, exist_ok=True)
    columns = (TextColumn("{task.description:<36}"), BarColumn(), MofNCompleteColumn(), TextColumn("runs"))
    todo = [
        (name, task, activation, seed)
        for name, task in tasks(args).items()
        for seed in range(task.seeds)
        for activation in ACTIVATIONS
    ]
    start = time.process_time()
    with (
        Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn()) as progress,
        open(args.out / "runs.csv", "w", newline="") as runs,
        open(args.out / "slopes.csv", "w", newline="") as slopes,
    ):
        runs_csv, slopes_csv = csv.writer(runs), csv.writer(slopes)
        runs_csv.writerow(field.name for field in fields(Run))
        slopes_csv.writerow(["task", "activation", *WATCHED])
        bar = progress.add_task("", total=len(todo))
        for name, task, activation, seed in todo:
            progress.update(bar, description=f"{name}, {activation}, seed {seed}")
            run, monitor = train(name, task, activation, seed)
            runs_csv.writerow(rounded(asdict(run).values()))
            runs.flush()
            if seed == 0:
                slopes_csv.writerows(
                    rounded([name, activation, *(row[column] for column in WATCHED)]) for row in monitor.rows()
                )
            if seed == 0 and (name, activation) == ("characters", "learnable, per channel"):
                report.save(monitor.plot(), args.pictures / "experiment-monitor.svg")
            if args.tensorboard:
                from torch.utils.tensorboard import SummaryWriter

                with SummaryWriter(args.tensorboard / f"{name}, {activation}, seed {seed}") as writer:
                    monitor.write_tensorboard(writer)
            progress.advance(bar)
    minutes = (time.process_time() - start) / 60
    machine = f"{processor()}, {args.threads} thread{'s' * (args.threads > 1)}"
    (args.out / "settings.md").write_text(
        f"Characters: {args.images:,} training images, passes over them: {args.epochs}, seeds: {args.seeds}. Wave: "
        f"{args.steps} steps, seeds: {args.narrow_seeds}. All of it took {minutes:.1f} minutes of processor time "
        f"({machine}; leaky_ext {leaky_ext.__version__}, torch {torch.__version__}).\n"
    )


def rounded(values: Iterable[Any]) -> list[object]:
    return [f"{value:.5g}" if isinstance(value, float) else value for value in values]


def processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())


def main(argv: list[str] | None = None) -> None:
    root = Path(__file__).resolve().parents[1]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--draw", action="store_true", help="train nothing: draw the results that are there")
    add("--seeds", type=int, default=5, help="of the convolutional network (default: %(default)s)")
    add("--narrow-seeds", type=int, default=16, help="of the narrow network (default: %(default)s)")
    add("--epochs", type=int, default=3, help="passes over the images (default: %(default)s)")
    add("--images", type=int, default=12_000, help="to train with (default: %(default)s)")
    add("--steps", type=int, default=500, help="of the narrow network (default: %(default)s)")
    add("--threads", type=int, default=torch.get_num_threads(), help="(default: %(default)s)")
    add("--tensorboard", type=Path, metavar="FOLDER", help="log every run there")
    add("--out", type=Path, default=root / "examples" / "results", help="folder of the results")
    add("--page", type=Path, default=root / "docs" / "experiment.md", help="page whose tables are written")
    add("--pictures", type=Path, default=root / "docs" / "figures", help="folder of the pictures")
    args = parser.parse_args(argv)
    args.pictures.mkdir(parents=True, exist_ok=True)
    if not args.draw:
        torch.set_num_threads(args.threads)
        train_all(args)
    report.draw(args.out, args.page, args.pictures)


if __name__ == "__main__":
    main()
