"""Draws charts as SVG, with the colours of Okabe and Ito and a marker for each line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from .cases import BOTH, M, size_name
from .contenders import CONTENDERS, PEER, SMALL
from .results import Results
from .tables import MIB, OWN, by_case, by_network, pick, training_steps, versus

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
MARKERS = "osD^vP"
INK = "#1f2328"
SHARES = {"time: convert(model)": ("learnable", "PReLU"), 'time: convert(model, save="output")': (SMALL, "PReLU")}
STYLE: dict[str, Any] = {
    "figure.facecolor": "white", "axes.grid": True, "axes.axisbelow": True, "grid.color": "#d1d9e0",
    "axes.spines.top": False, "axes.spines.right": False, "font.size": 10, "lines.linewidth": 1.8,
    "lines.markersize": 5, "svg.hashsalt": "leaky_ext", "svg.fonttype": "path",
}  # fmt: skip


def draw_all(results: dict[str, Results], folder: Path) -> Iterator[Path]:
    """Writes every chart that has rows."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in {"networks": networks, "speed-up": speed_up, "memory": memory}.items():
        yield from draw(figure, results, folder / f"{name}.svg")


def draw(figure: Callable[[dict[str, Results]], Figure | None], results: dict[str, Results], path: Path) -> list[Path]:
    """Writes one chart, and returns its path; nothing if there are no rows for it."""
    with matplotlib.rc_context(STYLE):
        drawn = figure(results)
        if drawn is None:
            return []
        drawn.savefig(path, format="svg", metadata={"Date": None})
        plt.close(drawn)
    path.write_text("".join(line.rstrip() + "\n" for line in path.read_text().splitlines()))
    return [path]


def networks(results: dict[str, Results]) -> Figure | None:
    """Draws memory and time of a training step as shares of PReLU's, with one line per network."""
    found = training_steps(results)
    if found is None:
        return None
    title, frame = found
    kept, speed = by_network(frame, "kept"), versus(by_case(frame).set_index("subject"), SHARES)
    names = [name for name in reversed(kept.index) if name in speed.index]
    kept, speed = kept.loc[names], speed.loc[names]
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 0.4 * len(names) + 2), sharey=True, layout="constrained")
    left.barh(names, kept[SMALL] / kept["PReLU"], color=COLOURS[5], label='kept by convert(model, save="output")')
    texts = [f"{a / MIB:,.0f} of {b / MIB:,.0f} MiB" for a, b in zip(kept[SMALL], kept["PReLU"], strict=True)]
    for name, text in zip(names, texts, strict=True):
        left.text(1.03, name, text, va="center", fontsize=8)
    left.plot(kept["ReLU"] / kept["PReLU"], names, "D", color=INK, label="kept with nn.ReLU")
    left.set(xlim=(0, 1.45), xticks=[0, 0.2, 0.4, 0.6, 0.8, 1], xlabel="kept for backward, share of nn.PReLU's")
    for index, (label, values) in enumerate(speed.items()):
        right.plot(1 / values, names, MARKERS[index], color=COLOURS[index], label=label)
    right.set(xlabel="time of a training step, share of nn.PReLU's")
    for panel in (left, right):
        panel.axvline(1, color=INK, linewidth=1)
        panel.grid(visible=False, axis="y")
    handles, labels = (a + b for a, b in zip(*(p.get_legend_handles_labels() for p in (left, right)), strict=True))
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
    figure.suptitle(f"PyTorch's PReLU = 1; eager, float32; {title}", fontsize=10)
    return figure


def speed_up(results: dict[str, Results]) -> Figure | None:
    """Draws the speed-up over PyTorch's own (forward + backward, float32) against size, with one line per machine."""
    lines: list[tuple[str, Any, Any]] = []
    for result in results.values():
        frame = pick(result.frame(), suite="operators", task=BOTH, dtype="float32", layout="flat")
        frame = pick(frame, malloc="default", group="")
        main = frame[frame["contender"].isin([*PEER, *PEER.values()]) & (frame["threads"] == frame["threads"].max())]
        cases = by_case(main).sort_values("numel")
        if len(cases):
            lines.append((result.machine.title, cases["numel"], versus(cases, OWN)))
    if not lines:
        return None
    figure, panels = plt.subplots(1, len(OWN), figsize=(10, 3.8), sharey=True, layout="constrained")
    for panel, pair in zip(panels, OWN, strict=True):
        for index, (title, sizes, ratios) in enumerate(lines):
            panel.plot(sizes, ratios[pair], label=title, color=COLOURS[index % 6], marker=MARKERS[index % 6])
        panel.axhline(1, color=INK, linewidth=1)
        panel.set(xscale="log", yscale="log", xlabel="elements", title=pair)
        panel.set_xticks([100, 10_000, M, 16 * M], [size_name(n) for n in (100, 10_000, M, 16 * M)])
        panel.minorticks_off()
        panel.set_yticks([0.5, 1, 2, 4, 8, 16])
        panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}x"))
    panels[0].set_ylabel("speed-up over PyTorch's own")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", frameon=False)
    return figure


def memory(results: dict[str, Results]) -> Figure | None:
    """Draws the bytes per element saved for backward in float32. All machines agree, so this uses the first one."""
    for result in results.values():
        rows = pick(result.frame(), suite="operators", task=BOTH, dtype="float32", layout="flat", numel=M)
        rows = rows[rows["kept"].notna()].drop_duplicates("contender").set_index("contender")
        if len(rows):
            break
    else:
        return None
    names = [name for name in reversed(CONTENDERS) if name in rows.index]
    beyond, kept = (rows.loc[names, column] / M for column in ("beyond", "kept"))
    figure, axes = plt.subplots(figsize=(7.5, 4.6), layout="constrained")
    axes.barh(names, beyond, color=COLOURS[1], label="kept for this alone", hatch="//", edgecolor="white")
    bars = axes.barh(names, kept - beyond, left=beyond, color=COLOURS[5], label="input or output itself")
    axes.bar_label(bars, [f"{value:.3g}" for value in kept], padding=4)
    axes.set_xlabel("bytes per element kept for backward, float32")
    axes.grid(visible=False, axis="y")
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    return figure
