"""Reads and writes benchmarks/results/MACHINE.json: the results of a machine, by suite."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from .cases import KEY
from .machine import Machine, Run

RESULTS = Path(__file__).resolve().parent / "results"
ROW = [*KEY, "contender"]  # identifies a row


def row(key: dict[str, Any], contender: str, results: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns the results of all processes for one contender in one case. Times in microseconds, memory in bytes."""
    problem = next((result["problem"] for result in results if "problem" in result), None)
    if problem:
        return {**key, "contender": contender, "problem": problem}
    samples = [pd.Series(result["samples"]) for result in results]
    low, high = pd.concat(samples).quantile([0.25, 0.75])
    return {
        **key,
        "contender": contender,
        "times": [round(float(taken.median()), 3) for taken in samples],  # of each process
        "low": round(low, 3),
        "high": round(high, 3),
        **{name: results[0][name] for name in ("kept", "beyond", "peak") if name in results[0]},
    }


def identity(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in ROW)


@dataclass
class Results:
    machine: Machine
    runs: dict[str, Run] = field(default_factory=dict)  # by suite, or by "suite: only"
    rows: list[dict[str, Any]] = field(default_factory=list)

    @staticmethod
    def load(path: Path) -> Results:
        data = json.loads(path.read_text())
        runs = {suite: Run(**run) for suite, run in data["runs"].items()}
        return Results(Machine(**data["machine"]), runs, data["rows"])

    def save(self, path: Path) -> None:
        """Writes one row per line, so that diffs are readable."""
        head = json.dumps(
            {"machine": asdict(self.machine), "runs": {s: asdict(r) for s, r in self.runs.items()}}, indent=1
        )
        rows = ",\n".join("  " + json.dumps(row) for row in self.rows)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'{head[:-2]},\n "rows": [\n{rows}\n ]\n}}\n')

    def merge(self, suite: str, run: Run, rows: list[dict[str, Any]], only: str | None = None) -> None:
        """Replaces the rows of the suite. With `only`, replaces only the rows that were measured again."""
        if only is None:
            self.runs = {name: other for name, other in self.runs.items() if name.partition(": ")[0] != suite}
            self.rows = [row for row in self.rows if row["suite"] != suite]
        self.runs[suite if only is None else f"{suite}: {only}"] = run
        new = {identity(row): row for row in rows}
        self.rows = [new.pop(identity(row), row) for row in self.rows] + list(new.values())

    def frame(self) -> pd.DataFrame:
        """Returns the rows as a data frame, with `time` (the median over processes), in the order of the file."""
        columns = [*ROW, "problem", "times", "low", "high", "kept", "beyond", "peak"]
        frame = pd.DataFrame(self.rows, columns=columns)
        frame["time"] = [pd.Series(t).median() if isinstance(t, list) else float("nan") for t in frame["times"]]
        frame["problem"] = frame["problem"].astype(object).fillna("")
        return frame


def load_all(folder: Path = RESULTS) -> dict[str, Results]:
    """Returns the results by file name, CPUs first."""
    paths = [path for path in sorted(folder.glob("*.json")) if not path.name.endswith(".quick.json")]
    results = {path.stem: Results.load(path) for path in paths}
    return dict(sorted(results.items(), key=lambda item: item[1].machine.device))
