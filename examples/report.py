"""Draws tables and pictures from the results of activations.py: `python examples/activations.py --draw`."""

import csv
import re
from collections.abc import Iterable
from math import sqrt
from pathlib import Path
from statistics import mean, median, stdev

import matplotlib
from matplotlib.figure import Figure
from PIL import Image
from scipy.stats import binomtest, t
from tasks import characters

Row = dict[str, str]
BASE = "leaky ReLU, 0.01"
SOLVED = 95.0  # percent of the wave's variance


def draw(results: Path, page: Path, pictures: Path) -> None:
    """Draws the pictures, and writes the text between <!-- table NAME --> and <!-- end table NAME --> in `page`."""
    runs, slopes = read(results / "runs.csv"), read(results / "slopes.csv")
    samples().save(pictures / "experiment-images.png")
    save(scores(runs), pictures / "experiment-scores.svg")
    save(slope_lines(slopes), pictures / "experiment-slopes.svg")
    tables = {
        "characters": characters_table(of(runs, task="characters")),
        "wave": wave_table(of(runs, task="wave")),
        "settings": (results / "settings.md").read_text().strip(),
    }
    text = (
        page.read_text() if page.exists() else "".join(f"<!-- table {n} -->\n<!-- end table {n} -->\n" for n in tables)
    )
    for name, table in tables.items():
        marked = re.compile(rf"(<!-- table {name} -->\n).*?(<!-- end table {name} -->)", re.DOTALL)
        text = marked.sub(lambda match, table=table: f"{match[1]}\n{table}\n\n{match[2]}", text)
    page.write_text(text)


def read(path: Path) -> list[Row]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def of(rows: Iterable[Row], **wanted: str) -> list[Row]:
    return [row for row in rows if all(row[key] == value for key, value in wanted.items())]


def names(rows: Iterable[Row]) -> list[str]:
    return list(dict.fromkeys(row["activation"] for row in rows))


def column(rows: Iterable[Row], key: str) -> list[float]:
    return [float(row[key]) for row in rows]


def half_width(values: list[float]) -> float:
    """Returns half the width of the 95% confidence interval of the mean, by Student's t."""
    return float(t.ppf(0.975, len(values) - 1)) * stdev(values) / sqrt(len(values)) if len(values) > 1 else float("nan")


def characters_table(runs: list[Row]) -> str:
    lines = [
        f"| activation | test accuracy, % | minus that of {BASE} | training loss | dead units, % | slopes at the end |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    base = column(of(runs, activation=BASE), "score")
    for name in names(runs):
        own = of(runs, activation=name)
        score = column(own, "score")
        gain = [a - b for a, b in zip(score, base, strict=True)]  # the same seeds, weights and batches
        cells = [name, f"{mean(score):.1f} ± {half_width(score):.1f}"]
        cells.append("" if name == BASE else f"{mean(gain):+.1f} ± {half_width(gain):.1f}")
        cells += [f"{mean(column(own, 'loss')):.3f}", f"{mean(column(own, 'dead')):.1f}", slope_range(own)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def wave_table(runs: list[Row]) -> str:
    lines = [
        f"| activation | seeds that explain {SOLVED:.0f}% of the variance | of all, 95% interval | variance explained, "
        "median, % | dead units, % | slopes at the end |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name in names(runs):
        own = of(runs, activation=name)
        score = column(own, "score")
        solved = sum(value >= SOLVED for value in score)
        interval = binomtest(solved, len(score)).proportion_ci(method="wilson")
        cells = [name, f"{solved} of {len(score)}", f"{100 * interval.low:.0f} to {100 * interval.high:.0f}%"]
        cells += [f"{median(score):.1f}", f"{mean(column(own, 'dead')):.1f}", slope_range(own)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def slope_range(runs: list[Row]) -> str:
    least, most = min(column(runs, "alpha_min")), max(column(runs, "alpha_max"))
    middle = f"{mean(column(runs, 'alpha')):.2f}"
    return middle if least == most else f"{middle} ({least:.2f} to {most:.2f})"


def save(figure: Figure, path: Path) -> None:
    """Saves a figure. The same figure gives the same bytes."""
    with matplotlib.rc_context({"svg.hashsalt": "leaky_ext", "svg.fonttype": "none"}):
        figure.savefig(path, metadata={"Date": None})


def samples() -> Image.Image:
    """Returns an image of the first 60 training images."""
    images, _ = characters(60, seed=0)
    tiles = images.view(4, 15, *images.shape[-2:]).permute(0, 2, 1, 3).flatten(2).flatten(0, 1)
    picture = Image.fromarray((255 * (tiles + 0.5) / 2).clamp(0, 255).byte().numpy())
    return picture.resize((3 * picture.width, 3 * picture.height), Image.Resampling.NEAREST)


def scores(runs: list[Row]) -> Figure:
    """Draws every seed as a dot. For the convolutional network, draws the mean and its confidence interval too."""
    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    order = names(runs)
    for i, name in enumerate(order):
        score = column(of(runs, task="characters", activation=name), "score")
        left.plot(score, [i] * len(score), "o", color=f"C{i}", alpha=0.4)
        left.errorbar(mean(score), i, xerr=half_width(score), color=f"C{i}", capsize=4, marker="|", markersize=14)
        score = [max(value, 0.0) for value in column(of(runs, task="wave", activation=name), "score")]
        right.plot(score, [i] * len(score), "o", color=f"C{i}", alpha=0.4)
    left.set_yticks(range(len(order)), order)
    left.invert_yaxis()
    left.set(title="characters: each seed, mean and 95% interval", xlabel="test accuracy, %")
    right.set(title="wave, 20 layers of 5: each seed", xlabel="variance explained, % (below 0 drawn at 0)")
    return figure


def slope_lines(slopes: list[Row]) -> Figure:
    """Draws mean and range of the slopes in every layer of the convolutional network, for the first seed."""
    learned = [name for name in names(slopes) if name.startswith(("learnable", "the same"))]
    figure = Figure(figsize=(11, 3.2), layout="constrained")
    panels = figure.subplots(1, len(learned), sharex=True, squeeze=False)[0]
    for panel, activation in zip(panels, learned, strict=True):
        rows = of(slopes, task="characters", activation=activation)
        for depth, layer in enumerate(dict.fromkeys(row["name"] for row in rows)):
            own = of(rows, name=layer)
            step = column(own, "step")
            panel.plot(step, column(own, "alpha_mean"), color=f"C{depth}", label=f"activation {depth + 1}")
            panel.fill_between(step, column(own, "alpha_min"), column(own, "alpha_max"), color=f"C{depth}", alpha=0.15)
        panel.set(title=activation, xlabel="step")
    panels[0].set_ylabel("slope: mean and range")
    panels[0].legend(fontsize="small")
    return figure
