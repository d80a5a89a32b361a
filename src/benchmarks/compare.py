"""`python -m benchmarks compare A.json B.json`: what got slower or faster from A to B, beyond the spread of both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .schema import load
from .view import beyond_spread, describe, machine, microseconds, table

KEY = ("operator", "direction", "dtype", "layout", "numel", "threads", "memory", "device", "block")
SMALLEST = 1.05  # ratio of medians below which nothing is said


def entries(result: dict[str, Any]) -> dict[tuple[Any, ...], tuple[dict[str, Any], dict[str, Any]]]:
    return {
        (*(row[name] for name in KEY), entry["implementation"]): (row, entry)
        for row in result["rows"]
        for entry in row["results"]
    }


def compare(before: Path, after: Path) -> str:
    """A Markdown report. Rows that only one of the two has are counted, not compared."""
    old, new = load(before), load(after)
    olds, news = entries(old), entries(new)
    slower, faster, changed, steady = [], [], [], 0
    for key in olds.keys() & news.keys():
        (row, a), (_, b) = olds[key], news[key]
        if "median" not in a or "median" not in b:
            if a["status"] != b["status"]:
                changed.append([describe(row), key[-1], a["status"], b["status"]])
            continue
        line = (b["median"] / a["median"], describe(row), str(key[-1]), a, b)
        if beyond_spread(b, a) and line[0] > SMALLEST:
            slower.append(line)
        elif beyond_spread(a, b) and line[0] < 1 / SMALLEST:
            faster.append(line)
        else:
            steady += 1

    def ratios(lines: list[tuple[float, str, str, dict[str, Any], dict[str, Any]]], reverse: bool) -> str:
        lines.sort(key=lambda line: (line[0], *line[1:3]), reverse=reverse)
        return table(
            ["row", "implementation", "before", "after", "after / before"],
            (
                [row, name, microseconds(a["median"]), microseconds(b["median"]), f"{r:.2f}"]
                for r, row, name, a, b in lines
            ),
        )

    parts = [f"before: {machine(old)}", f"after: {machine(new)}"]
    if old["device"] != new["device"]:
        parts.append("**The devices differ: ratios say nothing about the code.**")
    parts += [f"## Slower: {len(slower)}", ratios(slower, reverse=True)]
    parts += [f"## Faster: {len(faster)}", ratios(faster, reverse=False)]
    if changed:
        parts += ["## Changed status", table(["row", "implementation", "before", "after"], sorted(changed))]
    parts.append(
        f"{steady} unchanged within the spread; only before: {len(olds.keys() - news.keys())}, "
        f"only after: {len(news.keys() - olds.keys())}."
    )
    return "\n\n".join(part.rstrip() for part in parts) + "\n"
