"""`python -m benchmarks compare A.json B.json` prints rows that got slower or faster by more than the spread."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from .results import ROW, Results
from .tables import duration, in_full, markdown

SMALLEST = 1.05  # smaller ratios of medians are not printed


def compare(before: Path, after: Path) -> str:
    """Returns a Markdown report. Rows that only one of the two files has are counted, but not compared."""
    old, new = Results.load(before), Results.load(after)
    both = old.frame().merge(new.frame(), on=ROW, how="outer", suffixes=("_a", "_b"), indicator=True)
    counts, both = both["_merge"].value_counts(), both[both["_merge"] == "both"]
    ratio = both["time_b"] / both["time_a"]
    slower = (both["low_b"] > both["high_a"]) & (ratio > SMALLEST)
    faster = (both["low_a"] > both["high_b"]) & (ratio < 1 / SMALLEST)
    changed = (both["problem_a"] == "") != (both["problem_b"] == "")

    def rows(chosen: pd.Series, ascending: bool) -> str:
        part = both.assign(ratio=ratio)[chosen].sort_values("ratio", ascending=ascending)
        table = {
            "": [in_full(case) for case in part.itertuples()],
            "contender": part["contender"],
            "before": part["time_a"].map(duration),
            "after": part["time_b"].map(duration),
            "after / before": part["ratio"].map("{:.2f}".format),
        }
        return markdown(pd.DataFrame(table))

    def runs(results: Results) -> str:
        return "; ".join([results.machine.title, *sorted({str(run) for run in results.runs.values()})])

    parts = [f"before: {runs(old)}", f"after: {runs(new)}"]
    if old.machine != new.machine:
        parts.append("**The machines differ: ratios say nothing about the code.**")
    parts += [f"## Slower: {slower.sum()}", rows(slower, ascending=False)]
    parts += [f"## Faster: {faster.sum()}", rows(faster, ascending=True)]
    if changed.any():
        part = both[changed]
        labels = [in_full(case) for case in part.itertuples()]
        table = {"": labels, "contender": part["contender"], "before": part["problem_a"], "after": part["problem_b"]}
        parts += ["## Timed in one of them only", markdown(pd.DataFrame(table).replace("", "timed"))]
    steady = len(both) - slower.sum() - faster.sum() - changed.sum()
    parts.append(
        f"{steady} unchanged within the spread; only before: {counts['left_only']}, only after: {counts['right_only']}."
    )
    return "\n\n".join(part.rstrip() for part in parts) + "\n"
