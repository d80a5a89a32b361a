"""Reading rows of results, and writing them as cells of a Markdown table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from .blocks import BLOCKS
from .cases import PER_CHANNEL, size_name, threads_name
from .implementations import FIXED, IMPLEMENTATIONS, LEARNABLE, STRAIGHT_THROUGH

Result = dict[str, Any]
Row = dict[str, Any]
Entry = dict[str, Any]

TITLES = {LEARNABLE: "learnable slope", FIXED: "fixed slope", STRAIGHT_THROUGH: "straight-through"}
DIRECTIONS = {"both": "forward + backward", "forward": "forward", "backward": "backward"}
OURS = "leaky_ext"


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head, body = list(header), [list(row) for row in rows]
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) if body else "No rows.\n"


def microseconds(value: float) -> str:
    if value < 999.5:
        return f"{value:.3g} µs"
    return f"{value / 1e3:.3g} ms" if value < 999.5e3 else f"{value / 1e6:.3g} s"


def times(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.2f}x" if value < 9.95 else f"{value:.0f}x"


def rows_of(result: Result, **key: Any) -> Iterator[Row]:
    for row in result["rows"]:
        if all(row[name] == value for name, value in {"block": "", **key}.items()):
            yield row


def row_of(result: Result, **key: Any) -> Row | None:
    return next(rows_of(result, **key), None)


def measured(row: Row | None, name: str) -> Entry | None:
    """The implementation's entry where it has samples."""
    if row is None:
        return None
    return next((r for r in row["results"] if r["implementation"] == name and "median" in r), None)


def ratio(row: Row | None, name: str, ours: str = OURS) -> float | None:
    mine, theirs = measured(row, ours), measured(row, name)
    return theirs["median"] / mine["median"] if mine and theirs else None


def beyond_spread(slower: Entry, faster: Entry) -> bool:
    return bool(slower["q1"] > faster["q3"])


def default_memory(result: Result) -> str:
    return "cached" if result["device"]["type"] == "cuda" else "default"


def spread(entry: Entry) -> str:
    return f"{microseconds(entry['q1'])} to {microseconds(entry['q3'])}"


def full_name(row: Row, entry: Entry) -> str:
    """The implementation, with what it leaves out."""
    name = str(entry["implementation"])
    implementation = IMPLEMENTATIONS[row["operator"]].get(name)
    return f"{name} ({implementation.less})" if implementation and implementation.less else name


def machine(result: Result) -> str:
    """One sentence: what was measured on what."""
    device, software = result["device"], result["software"]
    what = f"{device['name']}, {device['memory_gib']} GiB"
    if device["type"] == "cpu":
        what += f", {device['cores']} cores, {device['capability']}, {threads_name(result['threads'])}"
    commit = software["commit"]
    return (
        f"{what}; leaky_ext {software['leaky_ext']}{f' ({commit[:10]}{commit[40:]})' if commit else ''}, "
        f"torch {software['torch']}, Python {software['python']}; {result['date'][:10]}"
        + ("" if result["complete"] else "; the run was cut short")
    )


def describe(row: Row) -> str:
    if row["block"]:
        return f"{BLOCKS[row['block']].title}, {TITLES[row['operator']]}"
    parts = [f"{TITLES[row['operator']]}, {DIRECTIONS[row['direction']]}", row["dtype"], size_name(row["numel"])]
    if row["layout"] != "flat":
        parts.append("per channel, " + row["layout"] if row["layout"] in PER_CHANNEL else row["layout"])
    if row["device"] == "cpu":
        parts.append(threads_name(row["threads"]))
    return ", ".join(parts + ([f"outputs in {row['memory']} memory"] if row["memory"] in ("fresh", "mapped") else []))
