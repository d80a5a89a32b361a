"""Charts as SVG, legible in light and dark: every picture brings its own background and follows the reader's scheme."""

from __future__ import annotations

import hashlib
import inspect
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from .cases import M1, eager
from .implementations import IMPLEMENTATIONS, LEARNABLE, STRAIGHT_THROUGH
from .view import TITLES, default_memory, row_of, rows_of

Result = dict[str, Any]

# Light colour -> the same thing on a dark background. Okabe and Ito's palette, ours in the strongest.
DARK = {
    "#ffffff": "#0d1117",  # background
    "#1f2328": "#e6edf3",  # text, axes
    "#d1d9e0": "#30363d",  # grid
    "#d55e00": "#ff8c42",  # leaky_ext
    "#0072b2": "#58a6ff",
    "#009e73": "#3fcf9f",
    "#aa4499": "#e58fd4",
    "#7a6a00": "#e3c84d",
    "#59636e": "#9da7b3",
}
BACKGROUND, INK, GRID, OURS, *OTHERS = DARK
STYLE: dict[str, Any] = {
    "figure.facecolor": BACKGROUND, "axes.facecolor": BACKGROUND, "savefig.facecolor": BACKGROUND,
    "text.color": INK, "axes.edgecolor": INK, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK,
    "grid.color": GRID, "axes.grid": True, "axes.axisbelow": True, "axes.spines.top": False, "axes.spines.right": False,
    "font.size": 10, "font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans"],
    "svg.fonttype": "path", "svg.hashsalt": "leaky_ext", "lines.linewidth": 1.8, "lines.markersize": 4,
}  # fmt: skip


@dataclass
class Chart:
    draw: Callable[[Any], None]  # is given a figure
    data: Any  # what is drawn
    size: tuple[float, float]

    @property
    def digest(self) -> str:
        """Of the data and of how it is drawn."""
        text = json.dumps(self.data, sort_keys=True) + inspect.getsource(inspect.getmodule(Chart))  # type: ignore[arg-type]
        return hashlib.sha256(text.encode()).hexdigest()

    def save(self, path: Path) -> None:
        import matplotlib

        matplotlib.use("svg")
        from matplotlib import pyplot

        style: Any = STYLE | {"figure.figsize": self.size}
        with matplotlib.rc_context(style):
            figure = pyplot.figure(layout="constrained")
            self.draw(figure)
            buffer = StringIO()
            figure.savefig(buffer, format="svg", metadata={"Date": None})
            pyplot.close(figure)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(with_dark_colours(buffer.getvalue(), self.digest))


def with_dark_colours(svg: str, digest: str) -> str:
    rules = "".join(
        f'[style*="{kind}: {light}"]{{{kind}:{dark} !important}}'
        for light, dark in DARK.items()
        for kind in ("fill", "stroke")
    )
    style = f"<style>@media (prefers-color-scheme: dark){{{rules}}}</style>"
    svg = re.sub(r"[ \t]+\n", "\n", svg)
    return re.sub(r"(<svg [^>]*>)", rf"\1\n <!-- drawn from {digest} -->\n {style}", svg, count=1)


def digest_of(path: Path) -> str | None:
    match = re.search(r"<!-- drawn from (\w+) -->", path.read_text()) if path.is_file() else None
    return match[1] if match else None


def all_charts(results: dict[str, Result], folder: Path) -> dict[Path, Chart]:
    charts = {folder / "functions.svg": functions_chart()}
    for name, result in results.items():
        charts[folder / f"{name}-time.svg"] = time_chart(result)
        charts[folder / f"{name}-memory.svg"] = memory_chart(result)
    return charts


SHOWN = {
    LEARNABLE: ["leaky_ext", "where", "clamp", "F.prelu", "F.leaky_relu", "where, compiled"],
    STRAIGHT_THROUGH: ["leaky_ext", "NSReLU", "detach", "FWBWMismatch", "F.relu"],
}


def time_chart(result: Result) -> Chart:
    """Forward and backward, microseconds against elements, float32."""
    key = {"direction": "both", "dtype": "float32", "layout": "flat", "memory": default_memory(result)}
    data: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for operator, names in SHOWN.items():
        lines: dict[str, list[tuple[int, float]]] = {name: [] for name in names}
        for row in rows_of(result, operator=operator, threads=result["threads"], **key):
            for entry in row["results"]:
                if entry["implementation"] in lines and "median" in entry:
                    lines[entry["implementation"]].append((row["numel"], entry["median"]))
        data[operator] = {name: sorted(points) for name, points in lines.items() if points}

    def draw(figure: Any) -> None:
        for axes, (operator, lines) in zip(figure.subplots(1, 2, sharey=True), data.items(), strict=True):
            axes.set(xscale="log", yscale="log", xlabel="elements", title=TITLES[operator])
            for index, (name, points) in enumerate(lines.items()):
                ours = name == "leaky_ext"
                axes.plot(
                    *zip(*points, strict=True), label=name, marker="o", color=OURS if ours else OTHERS[index - 1],
                    linewidth=2.6 if ours else 1.4, zorder=2 + ours, linestyle="--" if "compiled" in name else "-",
                )  # fmt: skip
            if lines:
                axes.legend(frameon=False, fontsize=9)
            axes.label_outer()
        figure.axes[0].set_ylabel("µs, forward + backward, float32")

    return Chart(draw, data, (9.5, 4.2))


def memory_chart(result: Result) -> Chart:
    """Bytes an element that are kept for backward, float32."""
    data: dict[str, dict[str, tuple[float, float]]] = {}
    for operator in IMPLEMENTATIONS:
        row = row_of(
            result, operator=operator, direction="both", numel=M1, dtype="float32", layout="flat",
            memory=default_memory(result), threads=result["threads"],
        )  # fmt: skip
        entries = row["results"] if row else []
        shown = ("leaky_ext", "leaky_ext, save=output", *eager(operator)[1:])
        bars = {e["implementation"]: (e["kept_beyond"] / M1, e["kept"] / M1) for e in entries if "kept" in e}
        data[operator] = {name: bars[name] for name in shown if name in bars}

    def draw(figure: Any) -> None:
        counts = [max(1, len(bars)) for bars in data.values()]
        grid = figure.subplots(len(data), 1, sharex=True, height_ratios=counts)
        for axes, (operator, bars) in zip(grid, data.items(), strict=True):
            names = list(bars)[::-1]
            colours = [OURS if name.startswith("leaky_ext") else OTHERS[0] for name in names]
            beyond, kept = ([bars[name][i] for name in names] for i in (0, 1))
            axes.barh(names, beyond, color=colours, height=0.7)
            rest = [k - b for k, b in zip(kept, beyond, strict=True)]
            drawn = axes.barh(names, rest, left=beyond, color=colours, height=0.7, alpha=0.45)
            axes.bar_label(drawn, [f"{k:.3g}" for k in kept], padding=4, color=INK, fontsize=9)
            axes.set_title(TITLES[operator], loc="left", fontsize=10)
            axes.grid(visible=False, axis="y")
        grid[-1].set_xlabel("bytes an element kept for backward, float32 (pale: input or output itself)")

    return Chart(draw, data, (7.5, 5.2))


def functions_chart() -> Chart:
    """The two functions and their gradients, as leaky_ext computes them."""
    import torch

    import leaky_ext

    data: dict[str, dict[str, list[float]]] = {}
    alpha = 0.25
    for name, function in (
        ("learnable_leaky_relu", leaky_ext.learnable_leaky_relu),
        ("straight_through_relu", leaky_ext.straight_through_relu),
    ):
        x = torch.cat([torch.linspace(-3, -0.001, 50), torch.linspace(0, 3, 50)]).requires_grad_()
        slope = torch.full_like(x, alpha).requires_grad_()
        y = function(x, slope)
        grad_x, grad_alpha = torch.autograd.grad(y.sum(), (x, slope))
        columns = {"x": x, "y": y, "dy/dx": grad_x, "dy/dalpha": grad_alpha}
        data[name] = {key: [round(v, 6) for v in value.tolist()] for key, value in columns.items()}

    def draw(figure: Any) -> None:
        for axes, (name, curves) in zip(figure.subplots(1, 2, sharey=True), data.items(), strict=True):
            lines = (("y", OURS, "-", 2.8), ("dy/dx", OTHERS[0], "--", 1.8), ("dy/dalpha", OTHERS[1], ":", 2.2))
            for key, colour, dashes, width in lines:
                for part in (slice(0, 50), slice(50, 100)):  # the gradients jump at 0
                    label = key if part.start == 0 else None
                    x = curves["x"][part]
                    axes.plot(x, curves[key][part], color=colour, linestyle=dashes, linewidth=width, label=label)
            axes.set(title=f"{name}, alpha = {alpha}", xlabel="x", xlim=(-3, 3), ylim=(-3, 3))
            axes.axhline(0, color=INK, linewidth=0.6)
            axes.axvline(0, color=INK, linewidth=0.6)
            axes.legend(frameon=False, loc="upper left")

    return Chart(draw, data, (9, 3.6))
