"""Formats the results of a run for a terminal: one line per comparison with PyTorch's own activation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd
from rich.text import Text

from .cases import KEY
from .contenders import PEER, SMALL
from .results import Results
from .tables import MIB, duration, in_full, mebibytes, ratio

# Contender -> what a user writes in a network, and as an operator.
WRITTEN = {
    "PReLU": ("nn.PReLU", "F.prelu"),
    "LeakyReLU": ("nn.LeakyReLU", "F.leaky_relu"),
    "ReLU": ("nn.ReLU", "F.relu"),
    "learnable": ("convert(model)", "learnable_leaky_relu(x, alpha)"),
    SMALL: ('convert(model, save="output")', 'the same with save="output"'),
    "fixed": ("learnable_leaky_relu(x, 0.01)", "learnable_leaky_relu(x, 0.01)"),
    "straight-through": ("StraightThroughReLU()", "straight_through_relu(x)"),
}
PAIRS = {"learnable": "PReLU", SMALL: "PReLU", **PEER}
ORDER = ("networks", "networks-compiled", "trained", "trained-compiled", "operators", "compiled", "calls", "host")
HEADER = f"{'':47}{'time':^18} {'':>6}{'MiB kept':^18}\n" + " {:<12} {:<30}{:>9}{:>10}{:>7}{:>9}{:>10}".format(
    "PyTorch", "leaky_ext", "PyTorch", "leaky_ext", "speed", "PyTorch", "leaky_ext"
)
EXPLAINED = """\
Speed is PyTorch's time divided by leaky_ext's, measured in turns: below 1, leaky_ext is slower.
MiB kept is what autograd saves from forward to backward, in a network for all layers.
Values and gradients of each were compared with the formula in plain PyTorch before the measurement.
These are quick measurements in one process: if the machine does anything else, ratios scatter by
20% and more."""


def screen(results: Results) -> Text:
    """Returns a title per case and a line per pair, green if leaky_ext is faster, red if it is slower."""
    run = next(iter(results.runs.values()))
    text = Text(f"leaky_ext {run.version} compared with {run.torch} on {results.machine.title}\n\n{HEADER}\n")
    for title, pairs in comparisons(results.frame()):
        text.append(f"{title}\n", "bold")
        for ours, own in pairs:
            speed = ratio(ours.times, own.times)
            text.append(line(ours, own, speed), "green" if speed >= 1.02 else "red" if speed < 0.98 else "")
    return text.append(f"\n{EXPLAINED}\n", "dim")


def comparisons(frame: pd.DataFrame) -> Iterator[tuple[str, list[tuple[Any, Any]]]]:
    """Yields the title of each case and the rows (leaky_ext's, PyTorch's) of its pairs."""
    timed = frame[frame["problem"] == ""].sort_values("suite", key=lambda s: s.map(ORDER.index), kind="stable")
    for _, rows in timed.groupby(list(KEY), sort=False):
        found = {row.contender: row for row in rows.itertuples()}
        pairs = [(found[ours], found[own]) for ours, own in PAIRS.items() if {ours, own} <= found.keys()]
        if pairs:
            yield in_full(pairs[0][0]), pairs


def line(ours: Any, own: Any, speed: float) -> str:
    theirs, mine = (WRITTEN[row.contender][row.subject == "operator"] for row in (own, ours))
    times = f"{duration(own.time):>9}{duration(ours.time):>10}{speed:>7.2f}"
    theirs_kept, mine_kept = ("<0.01" if 0 < row.kept < 0.005 * MIB else mebibytes(row.kept) for row in (own, ours))
    return f" {theirs:<12} {mine:<30}{times}{theirs_kept:>9}{mine_kept:>10}\n"
