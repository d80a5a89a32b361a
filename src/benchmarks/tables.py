"""The tables of a report, as Markdown.

Ratios are another implementation's median over leaky_ext's, within one row: above 1, leaky_ext is faster.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .blocks import BLOCKS
from .cases import K10, M1, M16, size_name, threads_name
from .implementations import FIXED, IMPLEMENTATIONS, LEARNABLE, STRAIGHT_THROUGH
from .view import (
    DIRECTIONS,
    OURS,
    TITLES,
    Result,
    Row,
    beyond_spread,
    default_memory,
    describe,
    full_name,
    machine,
    measured,
    microseconds,
    ratio,
    row_of,
    rows_of,
    spread,
    table,
    times,
)


def times_table(rows: list[Row], heads: list[str]) -> str:
    """Implementations down, one column for each row: median, and its ratio to leaky_ext's. The fastest is bold."""
    names = list(
        dict.fromkeys(r["implementation"] for row in rows for r in row["results"] if r["status"] != "yardstick")
    )
    best = [min((r["median"] for r in row["results"] if r["status"] == "ok"), default=0.0) for row in rows]

    def cell(row: Row, name: str, fastest: float) -> str:
        entry = next((r for r in row["results"] if r["implementation"] == name), None)
        if entry is None:
            return ""
        if "median" not in entry:
            return entry["status"]
        text = microseconds(entry["median"])
        text = f"**{text}**" if entry["median"] == fastest else text
        against = ratio(row, name)
        return text if name == OURS or against is None else f"{text} ({times(against)})"

    return table(
        ["", *heads],
        (
            [full_name(rows[0], {"implementation": name}), *(cell(r, name, b) for r, b in zip(rows, best, strict=True))]
            for name in names
        ),
    )


def by_size(result: Result, operator: str, threads: int, only: tuple[str, ...] = (), **key: Any) -> str:
    """Forward and backward, one column for each size; of all implementations, or of these."""
    key = {"direction": "both", "dtype": "float32", "layout": "flat", "memory": default_memory(result)} | key
    rows = sorted(rows_of(result, operator=operator, threads=threads, **key), key=lambda row: row["numel"])
    if only:
        rows = [{**row, "results": [r for r in row["results"] if r["implementation"] in only]} for row in rows]
    return times_table(rows, [size_name(row["numel"]) for row in rows]) if rows else "No rows."


# (what is compared, operator, implementation)
AGAINST = [
    ("learnable / `torch.where`", LEARNABLE, "where"),
    ("learnable / `clamp`", LEARNABLE, "clamp"),
    ("learnable / `F.prelu`", LEARNABLE, "F.prelu"),
    ("learnable / `F.leaky_relu` (no d(alpha) to compute)", LEARNABLE, "F.leaky_relu"),
    ("learnable / compiled `torch.where`", LEARNABLE, "where, compiled"),
    ("fixed slope / `F.leaky_relu`", FIXED, "F.leaky_relu"),
    ("straight-through / `F.relu`", STRAIGHT_THROUGH, "F.relu"),
    ("straight-through / `NSReLU`", STRAIGHT_THROUGH, "NSReLU"),
    ("straight-through / `detach` of two", STRAIGHT_THROUGH, "detach"),
    ("straight-through / `FWBWMismatch`", STRAIGHT_THROUGH, "FWBWMismatch"),
]


def against(result: Result, dtype: str, threads: int, **key: Any) -> str:
    """Ratios of forward + backward: what is compared down, sizes across."""
    key = {
        "direction": "both",
        "dtype": dtype,
        "layout": "flat",
        "memory": default_memory(result),
        "threads": threads,
    } | key
    sizes = sorted({row["numel"] for row in rows_of(result, **key)})
    sizes = [n for n in sizes if n in (100, 1_024, K10, M1, M16, 1 << 26)] or sizes

    def cells(operator: str, name: str) -> list[str]:
        values = [ratio(row_of(result, operator=operator, numel=n, **key), name) for n in sizes]
        return [times(value) for value in values]

    rows = [(title, *cells(operator, name)) for title, operator, name in AGAINST]
    return table(["", *map(size_name, sizes)], [row for row in rows if any(row[1:])])


def shares(result: Result, memory: str) -> str:
    """How near the memory's limit: bytes that have to move over time, as a share of copy_'s in the same row."""
    rows = [r for r in rows_of(result, memory=memory) if measured(r, "copy_") and r["bytes_to_move"]]
    order = list(IMPLEMENTATIONS)
    keys = ("direction", "dtype", "threads", "numel")
    rows.sort(key=lambda r: (order.index(r["operator"]), r["layout"] != "flat", *(r[key] for key in keys)))

    def line(row: Row) -> list[str]:
        copy = measured(row, "copy_")
        assert copy is not None
        size = {"float64": 8, "float32": 4}.get(row["dtype"], 2) * row["numel"]
        bandwidth = 2 * size / copy["median"]  # bytes a microsecond

        def share(entry: dict[str, Any] | None) -> str:
            return f"{row['bytes_to_move'] / entry['median'] / bandwidth:.0%}" if entry else ""

        rivals = {LEARNABLE: "F.prelu", FIXED: "F.leaky_relu", STRAIGHT_THROUGH: "F.relu"}
        mine = measured(row, OURS)
        add = measured(row, "add_out")
        return [
            describe(row),
            microseconds(mine["median"]) if mine else "",
            share(mine),
            share(measured(row, rivals[row["operator"]])),
            f"{bandwidth / 1e3:.3g} GB/s",
            times(copy["median"] / mine["median"]) if mine and row["direction"] == "forward" else "",
            times(add["median"] / mine["median"]) if mine and add else "",
        ]

    head = ["", "leaky_ext", "of copy_", "PyTorch's own, of copy_", "copy_", "copy_ / ours", "add(out=) / ours"]
    return table(head, map(line, rows))


def layouts(result: Result) -> str:
    """Learned slopes for each channel, against one slope on the same tensor and against F.prelu."""
    memory = default_memory(result)
    rows = [r for r in rows_of(result, operator=LEARNABLE, memory=memory) if r["layout"] not in ("flat", "block")]
    names = {
        "nchw": "per channel, NCHW",
        "channels_last": "per channel, channels_last",
        "btc": "per channel, (B, T, C)",
        "sliced": "one slope, x[:, :n] of a wider x",
    }

    def line(row: Row) -> list[str]:
        mine, shared = measured(row, OURS), measured(row, "leaky_ext, one slope")
        cells = [names[row["layout"]], DIRECTIONS[row["direction"]], row["dtype"], size_name(row["numel"])]
        cells.append(microseconds(mine["median"]) if mine else "")
        cells.append(times(mine["median"] / shared["median"]) if mine and shared else "")
        return cells + [times(ratio(row, name)) for name in ("F.prelu", "where", "F.leaky_relu")]

    head = ["", "direction", "dtype", "elements", "leaky_ext", "of one slope's time", "F.prelu", "where"]
    return table([*head, "F.leaky_relu (no d(alpha))"], map(line, rows))


def memory(result: Result) -> str:
    """Bytes an element in float32, measured on the allocator."""
    lines: list[list[str]] = []
    for operator in IMPLEMENTATIONS:
        for row in rows_of(result, operator=operator, direction="both", dtype="float32", layout="flat", numel=M1):
            for entry in row["results"]:
                name = f"{TITLES[operator]}: {full_name(row, entry)}"
                if "kept" in entry and name not in [line[0] for line in lines]:
                    values = [f"{entry[k] / row['numel']:.3f}" for k in ("kept", "kept_beyond", "peak")]
                    kernels = [str(entry["launches"])] if "launches" in entry else []
                    lines.append([name, *values, *kernels])
    head = ["bytes an element, float32", "kept for backward", "beyond input and output", "peak"]
    if lines and len(lines[0]) > len(head):
        head.append("kernel launches")
    return table(head, lines)


def blocks(result: Result) -> str:
    parts = []
    for name, block in BLOCKS.items():
        rows = [row for row in result["rows"] if row["block"] == name]
        for row in rows:
            lines = []
            for entry in row["results"]:
                title = full_name(row, entry)
                if "median" not in entry:
                    lines.append([title, entry["status"], "", "", ""])
                    continue
                compiled = ", compiled" if entry["implementation"].endswith(", compiled") else ""
                value = ratio(row, entry["implementation"], OURS + compiled)
                memory_ = [f"{entry[k] / 2**20:.2f}" if k in entry else "" for k in ("kept", "peak")]
                lines.append([title, microseconds(entry["median"]), spread(entry), times(value), *memory_])
            head = [f"{block.title}, {TITLES[row['operator']]}", "median", "quartiles", "over leaky_ext's"]
            parts.append(table([*head, "kept, MiB", "peak, MiB"], lines))
    return "\n\n".join(parts) or "No rows."


def losses(result: Result, only: Callable[[Row], bool] = lambda row: True) -> str:
    """Where another one is faster than leaky_ext, beyond the spread of both; eager against eager, the worst first."""
    found = []
    for row in filter(only, result["rows"]):
        for entry in row["results"]:
            compiled = ", compiled" if entry["implementation"].endswith(", compiled") else ""
            mine = measured(row, OURS + compiled)
            if (
                mine
                and entry["status"] == "ok"
                and not entry["implementation"].startswith(OURS)
                and beyond_spread(mine, entry)
            ):
                found.append((entry["median"] / mine["median"], row, entry, mine))
    found.sort(key=lambda item: item[0])
    return table(
        ["where another one is faster", "which", "its median", "leaky_ext's", "ratio"],
        (
            (describe(row), full_name(row, entry), *map(microseconds, (entry["median"], mine["median"])), times(value))
            for value, row, entry, mine in found
        ),
    )


def not_timed(result: Result) -> str:
    """What was refused, failed or left out, and why."""
    return table(
        ["row", "implementation", "", "why"],
        (
            [describe(row), entry["implementation"], entry["status"], entry["reason"].replace("|", "\\|")]
            for row in result["rows"]
            for entry in row["results"]
            if "reason" in entry
        ),
    )


def everything(result: Result) -> str:
    return "\n\n".join(
        f"{describe(row)}\n\n"
        + table(
            ["", "median", "quartiles", "samples", "ratio"],
            (
                (
                    full_name(row, entry),
                    microseconds(entry["median"]),
                    spread(entry),
                    str(len(entry["samples"])),
                    times(ratio(row, entry["implementation"])),
                )
                for entry in row["results"]
                if "median" in entry
            ),
        )
        for row in result["rows"]
    )


def summary(result: Result) -> str:
    """What a run prints last."""
    parts = [machine(result)]
    for dtype in ("float32", "bfloat16", "float16"):
        parts.append(f"forward + backward, {dtype}, {threads_name(result['threads'])}: time over leaky_ext's")
        parts.append(against(result, dtype, result["threads"]))
    parts += ["Faster than leaky_ext", losses(result), "Not timed", not_timed(result)]
    return "\n\n".join(parts) + "\n"
