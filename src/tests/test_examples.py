"""The examples run, and what they write is what they measured."""

import csv
import importlib.util
from pathlib import Path

import pytest
import torch

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")
pytest.importorskip("rich")


@pytest.fixture(scope="module")
def digits():
    path = Path(__file__).parents[1] / "examples" / "digits.py"
    spec = importlib.util.spec_from_file_location("digits", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def result(digits, tmp_path_factory):
    folder, threads = tmp_path_factory.mktemp("digits"), torch.get_num_threads()
    yield digits.main(["--seeds", "2", "--epochs", "1", "--out", str(folder)]), folder
    torch.set_num_threads(threads)


def test_every_activation_and_seed_is_run(digits, result):
    runs, _ = result
    assert [(run.seed, run.activation) for run in runs] == [(s, name) for s in range(2) for name in digits.ACTIVATIONS]
    assert all(0 <= run.dead <= 100 and run.loss > 0 for run in runs)
    assert min(run.accuracy for run in runs) > 30  # chance is 10


def test_files(result, digits, capsys):
    runs, folder = result
    with open(folder / "digits.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["accuracy"]) for row in rows] == [run.accuracy for run in runs]
    lines = (folder / "digits.md").read_text().splitlines()
    assert [line.split(" | ")[0].removeprefix("| ") for line in lines[2:7]] == list(digits.ACTIVATIONS)
    own = [run.accuracy for run in runs if run.activation == "ReLU"]
    assert f"| {sum(own) / 2:.2f} ± " in lines[2]
    assert (folder / "digits.png").read_bytes().startswith(b"\x89PNG")


def test_only_the_activation_differs(digits):
    """ReLU and straight-through ReLU compute the same before the first step, and the same seed gives the same run."""
    (a, first), (b, second) = (digits.train(name, 3, 1, 1e-3) for name in ("ReLU", "straight-through, 0.01"))
    assert [row["negative"] for row in first[:4]] == [row["negative"] for row in second[:4]]
    again, _ = digits.train("ReLU", 3, 1, 1e-3)
    assert again.accuracy == a.accuracy and again.loss == pytest.approx(a.loss, rel=1e-5)
    assert a.seed == b.seed == 3


def test_slopes_of_fixed_and_learned_activations(result):
    runs, _ = result
    by_name = {run.activation: run for run in runs}
    assert by_name["ReLU"].alpha == 0.0
    assert by_name["leaky ReLU, 0.01"].alpha == pytest.approx(0.01)
    learned = by_name["learnable, per channel"]
    assert learned.alpha_min < learned.alpha < learned.alpha_max
