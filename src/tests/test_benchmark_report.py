"""What the benchmark suite writes: results that fit their schema, reports, figures, comparisons."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("jsonschema")  # not on machines that only take results

from benchmarks import charts, report, schema, tables, view
from benchmarks.cases import K10, M1, Case, block_case
from benchmarks.compare import compare
from benchmarks.implementations import LEARNABLE, STRAIGHT_THROUGH
from benchmarks.worker import measure_case

CASE = Case(LEARNABLE, "both", "float32", "flat", K10, 1, "default", "cpu", ("where",))


def result_of(rows: list[dict[str, Any]], **changes: Any) -> dict[str, Any]:
    software = {"leaky_ext": "1.2.3", "commit": "0" * 40, "torch": "2", "python": "3", "system": "-", "config": "-"}
    device = {"type": "cpu", "name": "Some CPU", "cores": 2, "memory_gib": 8.0, "capability": "AVX2"}
    result = {
        "schema": schema.VERSION, "date": "2026-01-01T00:00:00+00:00", "suite": "full", "filter": "", "complete": True,
        "threads": 1, "seconds": 1.0, "device": device, "software": software, "rows": rows,
    }  # fmt: skip
    return result | changes


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    """A few real rows."""
    names = {LEARNABLE: ("leaky_ext", "where", "F.prelu"), STRAIGHT_THROUGH: ("leaky_ext", "F.relu", "NSReLU")}
    cases = [
        replace(CASE, operator=operator, numel=numel, implementations=names[operator])
        for operator in names
        for numel in (100, K10, M1)
    ]
    slopes = ("leaky_ext", "leaky_ext, one slope", "F.prelu")
    cases.append(replace(CASE, direction="forward", numel=M1, memory="mapped", implementations=slopes))
    cases.append(replace(CASE, layout="nchw", implementations=slopes))
    cases.append(block_case("mlp", STRAIGHT_THROUGH, 1, "cpu", compiled=False))
    return [measure_case(case, seconds=0.01) for case in cases]


@pytest.fixture
def results(rows: list[dict[str, Any]], tmp_path: Path) -> Path:
    """A folder with the results of one device."""
    schema.save(result_of(copy.deepcopy(rows)), tmp_path / "some-cpu.json")
    return tmp_path


def test_rows_fit_the_schema(results: Path, rows: list[dict[str, Any]]) -> None:
    assert schema.load(results / "some-cpu.json")["rows"] == json.loads(json.dumps(rows))


@pytest.mark.parametrize(
    "change",
    [
        {"status": "refused", "reason": "wrong y"},  # still has samples
        {"status": "failed"},
        {"status": "fine"},
        {"samples": []},
        {"median": -1.0},
        {"speed": 1},
    ],
)
def test_schema_refuses(results: Path, change: dict[str, Any]) -> None:
    import jsonschema

    result = schema.load(results / "some-cpu.json")
    result["rows"][0]["results"][0] |= change
    with pytest.raises(jsonschema.ValidationError):
        schema.validate(result)


def test_report_is_reproducible(results: Path, tmp_path: Path) -> None:
    loaded = report.load_results(results)
    assert list(loaded) == ["some-cpu"]
    page = report.device_page(loaded["some-cpu"])
    assert page == report.device_page(report.load_results(results)["some-cpu"])
    for heading in ("float32, 1 thread: ratios", "in mapped memory", "## Memory", "## Where another one is faster"):
        assert heading in page
    pytest.importorskip("matplotlib")
    for name, chart in charts.all_charts(loaded, tmp_path / "figures").items():
        chart.save(name)
        first = name.read_bytes()
        chart.save(name)
        assert name.read_bytes() == first and charts.digest_of(name) == chart.digest
        assert b"prefers-color-scheme: dark" in first


def test_report_fills_markers_and_nothing_else(results: Path) -> None:
    loaded = report.load_results(results)
    text = "before\n<!-- begin memory table -->\nold\n<!-- end memory table -->\nafter\n"
    filled = report.fill(text, loaded)
    assert filled.startswith("before\n<!-- begin memory table -->\n") and "old" not in filled
    assert filled.endswith("<!-- end memory table -->\nafter\n") and "0.125" in filled
    assert report.fill(filled, loaded) == filled
    assert "No results" in report.fill(text, {})
    with pytest.raises(KeyError):
        report.fill(text.replace("memory table", "no such table"), loaded)


def test_losses_are_shown(results: Path) -> None:
    result = schema.load(results / "some-cpu.json")
    entries = {entry["implementation"]: entry for entry in result["rows"][0]["results"]}
    for name, median in (("leaky_ext", 10.0), ("where", 5.0), ("F.prelu", 9.9)):
        entries[name] |= {"median": median, "q1": median - 0.2, "q3": median + 0.2}
    losses = tables.losses(result, lambda row: row is result["rows"][0])
    assert "| where | 5 µs | 10 µs | 0.50x |" in losses
    assert "F.prelu" not in losses  # within the spread
    assert tables.losses(result, lambda row: False) == "No rows.\n"


def test_compare_shows_what_is_beyond_the_spread(results: Path) -> None:
    before, after = results / "some-cpu.json", results / "after.json"
    result = schema.load(before)

    def change(row: int, factor: float) -> str:
        entry = result["rows"][row]["results"][0]
        for key in ("q1", "median", "q3"):
            entry[key] *= factor
        return view.describe(result["rows"][row])

    slower, faster = change(0, 100.0), change(1, 0.01)
    change(2, 1.0001)
    result["rows"][3]["results"][0] = {"implementation": "leaky_ext", "status": "refused", "reason": "wrong y"}
    schema.save(result, after)
    text = compare(before, after)
    parts = text.split("## ")
    assert [part.split("\n")[0] for part in parts[1:]] == ["Slower: 1", "Faster: 1", "Changed status"]
    assert slower in parts[1] and "100.00" in parts[1] and faster in parts[2]
    assert "| ok | refused |" in parts[3]
    assert "0 unchanged" not in text and "only before: 0, only after: 0" in text
    assert "devices differ" not in text
    schema.save(result | {"device": result["device"] | {"name": "Another"}}, after)
    assert "devices differ" in compare(before, after)
