"""What the benchmarks write: pages, charts, comparisons, and the parts of other documents."""

from __future__ import annotations

import copy
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pandas")  # not on machines that run other tests alone

from benchmarks import charts, report
from benchmarks.cases import BOTH, FORWARD, SUITES, TRAINING, Case, M
from benchmarks.compare import compare
from benchmarks.contenders import MAIN, NETWORK_CONTENDERS, SMALL
from benchmarks.machine import Machine, Run
from benchmarks.results import Results, load_all
from benchmarks.show import ORDER, screen
from scripts import splice_docs

MACHINE = Machine(
    name="Some CPU", device="cpu", cores=2, memory_gib=8.0, cpu="Some CPU, family 1 model 2", caches="", system=""
)
RUN = Run(
    version="1.2.3", commit="0123456789", date="2026-01-01", torch="torch 2", python="3", quick=False, seconds=1.0,
    config="-",
)  # fmt: skip

TITLES = ("MLP, training step", "1M float32, forward + backward")


def rows(case: Case, times: dict[str, list[float]], **memory: int) -> list[dict[str, Any]]:
    return [
        {**case.key, "contender": name, "times": taken, "low": min(taken) * 0.99, "high": max(taken) * 1.01, **memory}
        for name, taken in times.items()
    ]


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A folder with results of one machine: learnable is 2 times as fast as PReLU, fixed 0.5 times as LeakyReLU."""
    times = dict(zip(MAIN, ([10.0, 40.0], [8.0, 16.0], [3.0, 3.0], [20.0, 80.0], [4.0, 8.0], [3.0, 3.0]), strict=True))
    operator = Case(suite="operators", subject="operator", task=BOTH, contenders=MAIN, numel=M)
    network = Case(suite="networks", subject="MLP", task=TRAINING, contenders=NETWORK_CONTENDERS)
    found = Results(MACHINE)
    forward = Case(suite="operators", subject="operator", task=FORWARD, contenders=MAIN, numel=M)
    operators = rows(operator, times, kept=4 * M, beyond=0, peak=8 * M) + rows(forward, times)
    found.merge("operators", RUN, [*operators, {**operator.key, "contender": "oneDNN", "problem": "refused: wrong y"}])
    step = rows(network, times, kept=6 << 20, peak=9 << 20)
    step += rows(network, {SMALL: [9.0, 36.0]}, kept=3 << 20, peak=7 << 20)
    found.merge("networks", RUN, step)
    found.save(tmp_path / "some-cpu.json")
    return tmp_path


def test_results_come_back_as_they_were(results: Path, tmp_path: Path) -> None:
    loaded = Results.load(results / "some-cpu.json")
    loaded.save(tmp_path / "again.json")
    assert Results.load(tmp_path / "again.json") == loaded
    assert loaded.machine == MACHINE and loaded.runs == {"operators": RUN, "networks": RUN}


def test_quick_results_are_not_reported(results: Path) -> None:
    (results / "other.quick.json").write_text((results / "some-cpu.json").read_text())
    assert list(load_all(results)) == ["some-cpu"]


def test_ratios_are_medians_of_ratios_within_a_process(results: Path) -> None:
    page = report.page(load_all(results)["some-cpu"])
    section = page.split("## Networks, training step, eager\n")[1].split("## ")[0]
    assert "| MLP | 2.00 | **0.50** | 1.00 | 2.22 | 25 µs |" in section  # 20 / 10 and 80 / 40; losses are bold


def test_a_page_has_every_row_and_what_was_not_timed(results: Path) -> None:
    loaded = load_all(results)["some-cpu"]
    page = report.page(loaded)
    everything = page.split("## All rows")[1]
    assert everything.count("\n| ") == 2 + len(loaded.rows) - 1  # header, rule, and all but the refused one
    assert "oneDNN | refused: wrong y" in page.split("## Not timed")[1].split("## ")[0]
    assert "Some CPU, family 1 model 2" in page and "0123456789" in page


def test_headline_has_a_line_per_network_and_links_to_the_page(results: Path) -> None:
    text = report.headline(load_all(results))
    assert "| MLP | 2.00 | **0.50** | 1.00 |" in text and "(docs/benchmarks/some-cpu.md)" in text
    assert "No results" in report.headline({})


def test_medians_have_a_line_per_machine_and_precision(results: Path) -> None:
    loaded = load_all(results)
    loaded["some-cpu"].merge(
        "trained",
        RUN,
        [
            row
            for subject, time in (("MLP (bf16)", 10.0), ("PNet (bf16, channels_last)", 5.0))
            for row in rows(
                Case(suite="trained", subject=subject, task=TRAINING, contenders=MAIN),
                {"learnable": [time], "PReLU": [20.0]},
            )
        ],
    )
    lines = report.medians(loaded, "cpu").splitlines()
    machine = "[Some CPU, family 1 model 2, 2 cores](docs/benchmarks/some-cpu.md)"
    assert lines[2].startswith(f"| {machine} | float32 | 1 | 2.00 (2.00 to 2.00) | 0.50 (0.50 to 0.50) |")
    assert lines[3].startswith(f"| {machine} | bfloat16 autocast, channels_last | 2 | 3.00 (2.00 to 4.00) |")
    assert "No results" in report.medians(loaded, "cuda")


def test_the_screen_knows_every_suite() -> None:
    assert set(ORDER) == set(SUITES)


def test_the_screen_names_both_sides_of_every_comparison(results: Path) -> None:
    text = screen(load_all(results)["some-cpu"])
    lines = [" ".join(line.split()) for line in text.plain.splitlines()]
    network, operator = (lines.index(f"{case}, eager, 2 threads") for case in TITLES)
    assert lines[network + 1 : network + 5] == [
        "nn.PReLU convert(model) 50 µs 25 µs 2.00 6.00 6.00",
        'nn.PReLU convert(model, save="output") 50 µs 22.5 µs 2.22 6.00 3.00',
        "nn.LeakyReLU learnable_leaky_relu(x, 0.01) 6 µs 12 µs 0.50 6.00 6.00",
        "nn.ReLU StraightThroughReLU() 3 µs 3 µs 1.00 6.00 6.00",
    ]
    assert lines[operator + 1] == "F.prelu learnable_leaky_relu(x, alpha) 50 µs 25 µs 2.00 4.00 4.00"
    assert network < operator and max(map(len, text.plain.splitlines())) <= 100
    coloured = {text.plain[span.start : span.end].split()[0]: span.style for span in text.spans if span.style != "bold"}
    assert coloured["nn.PReLU"] == "green" and coloured["nn.LeakyReLU"] == "red" and "nn.ReLU" not in coloured


def test_pages_and_charts_are_the_same_every_time(results: Path, tmp_path: Path) -> None:
    loaded = load_all(results)
    assert report.page(loaded["some-cpu"]) == report.page(load_all(results)["some-cpu"])
    first = {path.name: path.read_bytes() for path in charts.draw_all(loaded, tmp_path / "figures")}
    again = {path.name: path.read_bytes() for path in charts.draw_all(loaded, tmp_path / "figures")}
    assert first == again and first.keys() == {"networks.svg", "speed-up.svg", "memory.svg"}
    for text in first.values():
        ElementTree.fromstring(text)


def test_charts_without_results_are_left_out(tmp_path: Path) -> None:
    assert [path.name for path in charts.draw_all({}, tmp_path)] == []


def test_compare_shows_what_is_beyond_the_spread(results: Path) -> None:
    before, after = results / "some-cpu.json", results / "after.json"
    result = Results.load(before)

    def change(row: dict[str, Any], factor: float) -> None:
        row |= {"times": [t * factor for t in row["times"]], "low": row["low"] * factor, "high": row["high"] * factor}

    change(result.rows[0], 100.0)
    change(result.rows[1], 0.01)
    change(result.rows[2], 1.0001)
    result.rows[3] = {k: v for k, v in result.rows[3].items() if k not in ("times", "low", "high")} | {
        "problem": "gone"
    }
    del result.rows[-1]
    result.save(after)
    parts = compare(before, after).split("## ")
    assert [part.split("\n")[0] for part in parts[1:]] == ["Slower: 1", "Faster: 1", "Timed in one of them only"]
    assert "learnable" in parts[1] and "100.00" in parts[1] and "fixed" in parts[2]
    assert "| timed | gone |" in parts[3]
    assert "only before: 1, only after: 0" in parts[3] and "machines differ" not in parts[0]
    other = copy.deepcopy(result)
    other.machine = Machine(**{**MACHINE.__dict__, "name": "Another"})
    other.save(after)
    assert "machines differ" in compare(before, after)


def test_splicing_fills_markers_and_nothing_else(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splice_docs.results, "load_all", lambda: load_all(results))
    text = "before\n<!-- memory -->\nold\n<!-- /memory -->\nafter\n"
    filled = splice_docs.fill(text)
    assert filled.startswith("before\n<!-- memory -->\n") and filled.endswith("<!-- /memory -->\nafter\n")
    assert "old" not in filled and "| MLP | 6.00 | 6.00 | 3.00 | 6.00 | 0.50 | 0.78 |" in filled
    assert splice_docs.fill(filled) == filled
    with pytest.raises(KeyError):
        splice_docs.fill(text.replace("memory", "nothing"))


def test_documents_are_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    """If this fails, run `python -m benchmarks report` and scripts/splice_docs.py."""
    assert splice_docs.main(["--check"]) == 0, capsys.readouterr().out
