"""`python -m benchmarks report`: everything that is written from benchmarks/results/*.json, and from files beside it.

- benchmarks/results/DEVICE.md: all tables of a device
- docs/figures/: charts
- in README.md and docs/*.md, what stands between <!-- begin NAME --> and <!-- end NAME -->; NAME is one of SECTIONS,
  or `file PATH`, which takes in a Markdown file without its title
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import charts, tables, view
from .cases import M1, eager, threads_name
from .environment import ROOT
from .implementations import FIXED, LEARNABLE, STRAIGHT_THROUGH
from .schema import RESULTS, load

Result = dict[str, Any]
FIGURES = ROOT / "docs" / "figures"
MARKED = re.compile(r"(<!-- begin (?P<name>[^>]+?) -->\n).*?(<!-- end (?P=name) -->)", re.DOTALL)
NOTHING = (
    "No results are committed yet: `python -m benchmarks run --full && python -m benchmarks report` writes them.\n"
)


def load_results(folder: Path = RESULTS) -> dict[str, Result]:
    """Name of the file -> results; CPUs first."""
    paths = [path for path in sorted(folder.glob("*.json")) if not path.name.endswith(".quick.json")]
    results = {path.stem: load(path) for path in paths}
    return dict(sorted(results.items(), key=lambda item: item[1]["device"]["type"]))


def device_page(result: Result) -> str:
    """All tables of one device."""
    parts = [
        f"# {result['device']['name']}",
        f"Written by `python -m benchmarks report`. {view.machine(result)}. The run took {result['seconds']:.0f} s.",
        "Ratios are the other implementation's median over leaky_ext's in the same row: above 1, leaky_ext is faster.",
        "```text\n" + result["software"]["config"].strip() + "\n```",
    ]
    threads = sorted({row["threads"] for row in result["rows"]})
    for dtype in ("float32", "bfloat16", "float16"):
        for count in threads:
            ratios = tables.against(result, dtype, count)
            if not ratios.startswith("No rows"):
                parts += [f"## Forward + backward, {dtype}, {threads_name(count)}: ratios", ratios]
    for operator, title in view.TITLES.items():
        for count in threads:
            times = tables.by_size(result, operator, count)
            if not times.startswith("No rows"):
                parts += [
                    f"## {title[0].upper()}{title[1:]}: forward + backward, {threads_name(count)}",
                    times,
                ]
    for memory in ("default", "fresh", "mapped", "cached"):
        share = tables.shares(result, memory)
        if not share.startswith("No rows"):
            parts += [f"## Share of the copy bandwidth, outputs in {memory} memory", share]
    parts += ["## Slopes for each channel, and slices", tables.layouts(result)]
    parts += ["## Memory", tables.memory(result)]
    parts += ["## Blocks: forward + backward", tables.blocks(result)]
    parts += ["## Where another one is faster", tables.losses(result)]
    parts += ["## Not timed", tables.not_timed(result)]
    parts += ["## All rows", tables.everything(result)]
    return "\n\n".join(part.rstrip() for part in parts) + "\n"


def each(write: Callable[[str, Result], str]) -> Callable[[dict[str, Result]], str]:
    """A section with a part for each device."""

    def section(results: dict[str, Result]) -> str:
        return (
            "\n\n".join(write(name, result).strip() for name, result in results.items()) + "\n" if results else NOTHING
        )

    return section


def headline(name: str, result: Result) -> str:
    threads = result["threads"]
    parts = [f"**{view.machine(result)}** ([all rows](benchmarks/results/{name}.md))"]
    for operator, title in ((LEARNABLE, "Learnable slope"), (STRAIGHT_THROUGH, "Straight-through ReLU")):
        parts.append(f"{title}, float32, forward + backward through autograd (in brackets: times leaky_ext's):")
        parts.append(tables.by_size(result, operator, threads, only=eager(operator)))
    halves = tables.against(result, "bfloat16", threads)
    if not halves.startswith("No rows"):
        parts += ["bfloat16, the same: times over leaky_ext's.", halves]
    parts.append(f"![Time of forward and backward against the number of elements](docs/figures/{name}-time.svg)")
    return "\n\n".join(parts)


def memory(name: str, result: Result) -> str:
    return f"![Memory kept for backward](docs/figures/{name}-memory.svg)"


def slower(name: str, result: Result) -> str:
    def main_rows(row: dict[str, Any]) -> bool:
        return (
            row["memory"] in ("default", "cached") and row["direction"] == "both" and row["layout"] in ("flat", "block")
        )

    return f"{view.machine(result)}:\n\n{tables.losses(result, main_rows)}"


def compiled(name: str, result: Result) -> str:
    row = view.row_of(
        result, operator=LEARNABLE, direction="both", dtype="float32", layout="flat", numel=M1,
        threads=result["threads"], memory=view.default_memory(result),
    )  # fmt: skip
    return tables.times_table([row], ["1M elements, forward + backward"]) if row else "No rows."


SECTIONS: dict[str, Callable[[dict[str, Result]], str]] = {
    "headline": each(headline),
    "memory": each(memory),
    "memory table": each(lambda name, result: f"{view.machine(result)}:\n\n{tables.memory(result)}"),
    "blocks": each(lambda name, result: f"{view.machine(result)}:\n\n{tables.blocks(result)}"),
    "slower": each(slower),
    "compiled": each(compiled),
    "mapped": each(
        lambda name, result: tables.shares(result, "cached" if result["device"]["type"] == "cuda" else "mapped")
    ),
    "default": each(lambda name, result: tables.shares(result, "default")),
    "fixed": each(lambda name, result: tables.by_size(result, FIXED, result["threads"])),
}


def included(path: str) -> str:
    """A Markdown file without its title; its links are made to work from the root."""
    file = ROOT / path
    if not file.is_file():
        return f"`{path}` is not there yet.\n"
    text = re.sub(r"\A# .*\n+", "", file.read_text())
    return re.sub(r"(\]\()(?!https?://|#|/)", rf"\g<1>{Path(path).parent}/", text).strip() + "\n"


def fill(text: str, results: dict[str, Result]) -> str:
    """The text with everything between markers written anew."""

    def section(match: re.Match[str]) -> str:
        name = match["name"]
        content = included(name.removeprefix("file ")) if name.startswith("file ") else SECTIONS[name](results)
        return f"{match[1]}\n{content}\n{match[3]}"

    return MARKED.sub(section, text)


def outputs(folder: Path = RESULTS) -> dict[Path, str]:
    """Path -> content of every text file that a report writes."""
    results = load_results(folder)
    pages = {folder / f"{name}.md": device_page(result) for name, result in results.items()}
    marked = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    return pages | {path: fill(path.read_text(), results) for path in marked if "<!-- begin " in path.read_text()}


def report(check: bool = False, folder: Path = RESULTS) -> int:
    """Writes all outputs; with `check`, says which are out of date and returns 1 where one is."""
    stale = [path for path, text in outputs(folder).items() if not path.is_file() or path.read_text() != text]
    pictures = charts.all_charts(load_results(folder), FIGURES)
    # Pictures differ with the release of matplotlib: each carries a digest of what it was drawn from.
    stale += [path for path, chart in pictures.items() if chart.digest != charts.digest_of(path)]
    for path in stale:
        print(
            f"{'out of date' if check else 'written'}: {path.relative_to(ROOT) if path.is_relative_to(ROOT) else path}"
        )
    if check:
        return int(bool(stale))
    for path, text in outputs(folder).items():
        path.write_text(text)
    for path, chart in pictures.items():
        if path in stale:
            chart.save(path)
    return 0
