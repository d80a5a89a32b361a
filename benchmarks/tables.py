"""Computes ratios from rows of results, and formats tables as Markdown."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd

from .cases import KEY, TRAINING, size_name
from .contenders import PEER, SMALL
from .results import Results

MIB = 1 << 20


def markdown(frame: pd.DataFrame) -> str:
    """Returns a Markdown table. The first column is aligned to the left, the others to the right."""
    if frame.empty:
        return "No rows.\n"
    rule = ["---"] + ["---:"] * (len(frame.columns) - 1)
    lines = [list(frame.columns), rule, *frame.astype(str).values.tolist()]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def duration(microseconds: float) -> str:
    if math.isnan(microseconds):
        return ""
    for scale, unit in ((1e6, "s"), (1e3, "ms")):
        if microseconds >= 0.9995 * scale:
            return f"{microseconds / scale:.3g} {unit}"
    return f"{microseconds:.3g} µs"


def mebibytes(count: float) -> str:
    return "" if math.isnan(count) else f"{count / MIB:.2f}"


def speedup(ratio: float) -> str:
    """Formats a speed-up, in bold if it is a loss."""
    if math.isnan(ratio):
        return ""
    text = f"{ratio:.2f}" if ratio < 9.95 else f"{ratio:.0f}"
    return f"**{text}**" if float(text) < 1 else text


def pick(frame: pd.DataFrame, **wanted: Any) -> pd.DataFrame:
    """Returns the rows that have these values. A tuple allows several values."""
    for name, value in wanted.items():
        frame = frame[frame[name].isin(value if isinstance(value, tuple) else (value,))]
    return frame


def by_case(frame: pd.DataFrame) -> pd.DataFrame:
    """Returns one line per case, in the order of the file. Each contender has a list of times, one per process."""
    timed = frame[frame["problem"] == ""]
    table = timed.pivot_table(index=list(KEY), columns="contender", values="times", aggfunc="first")
    order = pd.MultiIndex.from_frame(
        timed[list(KEY)].drop_duplicates()
    )  # sort=False keeps the order of one contender only
    return table.reindex(order).reset_index()


def ratio(mine: Any, theirs: Any) -> float:
    """Returns how many times as fast the first is: the median of the ratios over the processes."""
    if not isinstance(mine, list) or not isinstance(theirs, list):
        return math.nan
    return float(pd.Series([b / a for a, b in zip(mine, theirs, strict=True)]).median())


def versus(cases: pd.DataFrame, pairs: Mapping[str, tuple[str, str]]) -> pd.DataFrame:
    """Returns one column per pair (ours, other): how many times as fast ours is."""
    nothing = pd.Series([None] * len(cases), index=cases.index)
    return pd.DataFrame(
        {
            title: [ratio(a, b) for a, b in zip(cases.get(ours, nothing), cases.get(other, nothing), strict=True)]
            for title, (ours, other) in pairs.items()
        },
        index=cases.index,
        dtype=float,
    )


OWN = {f"{ours} / {peer}": (ours, peer) for ours, peer in PEER.items()}
IN_NETWORKS = OWN | {
    "save=output / PReLU": (SMALL, "PReLU"),
    "none / PReLU": ("none", "PReLU"),  # the upper bound
}


def training_steps(results: Mapping[str, Results]) -> tuple[str, pd.DataFrame] | None:
    """Returns the first machine that has rows with save="output", and its eager training steps of networks."""
    for result in results.values():
        frame = pick(result.frame(), suite="networks", task=TRAINING, malloc="default", problem="")
        if SMALL in set(frame["contender"]):
            return result.machine.title, frame
    return None


def by_network(frame: pd.DataFrame, column: str) -> pd.DataFrame:
    """Returns one line per network and one column per contender."""
    return frame.pivot_table(index="subject", columns="contender", values=column, sort=False)


def ratios(
    frame: pd.DataFrame, label: Callable[[Any], str], pairs: Mapping[str, tuple[str, str]] = OWN, title: str = ""
) -> str:
    """Returns one line per case: the ratios of the pairs, and the time of leaky_ext's activation in the first pair."""
    cases = by_case(frame)
    if cases.empty:
        return "No rows.\n"
    table = versus(cases, pairs).dropna(axis="columns", how="all").map(speedup)
    table.insert(0, title, [label(case) for case in cases.itertuples()])
    first = next(iter(pairs.values()))[0]
    if first in cases:
        times = [pd.Series(t).median() if isinstance(t, list) else math.nan for t in cases[first]]
        table[f"{first} takes"] = [duration(time) for time in times]
    return markdown(table)


def memory(frame: pd.DataFrame, contenders: tuple[str, ...], column: str = "kept") -> str:
    """Returns a table in MiB: one line per case and one column per contender."""
    have = frame[frame[column].notna() & frame["contender"].isin(contenders)]
    if have.empty:
        return "No rows.\n"
    table = have.pivot_table(index=list(KEY), columns="contender", values=column, sort=False).reset_index()
    shown = table[[name for name in contenders if name in table]].map(mebibytes)
    shown.insert(0, "", [describe(case) for case in table.itertuples()])
    return markdown(shown)


def describe(case: Any) -> str:
    """Returns a case in a few words."""
    if case.subject != "operator":
        return str(case.subject)
    layout = "" if case.layout == "flat" else f", per channel, {case.layout}"
    return f"{size_name(case.numel)} {case.dtype}{layout}"


def in_full(case: Any) -> str:
    parts = [describe(case), case.task, "compiled" if case.compiled else "eager", threads_name(case.threads)]
    return ", ".join(parts + (["memory kept by glibc"] if case.malloc == "kept" else []))


def threads_name(count: int) -> str:
    return f"{count} thread{'s' * (count > 1)}"
