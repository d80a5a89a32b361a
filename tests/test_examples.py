"""The experiment runs, what it writes is what it measured, and its page shows the committed results."""

import csv
import importlib
import re
import shutil
from pathlib import Path
from statistics import mean

import pytest
import torch

pytest.importorskip("matplotlib")
pytest.importorskip("rich")
pytest.importorskip("scipy")

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def example():
    """examples/activations.py, with the modules beside it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "examples")
        yield importlib.import_module("activations")


@pytest.fixture(scope="module")
def result(example, tmp_path_factory):
    folder, threads = tmp_path_factory.mktemp("experiment"), torch.get_num_threads()
    page = folder / "page.md"
    page.write_text("before\n<!-- table characters -->\nold\n<!-- end table characters -->\nafter\n")
    sizes = {"seeds": 2, "narrow-seeds": 2, "epochs": 1, "images": 1344, "steps": 100, "threads": 1}
    options = [f"--{name}={value}" for name, value in sizes.items()]
    example.main(
        [*options, f"--out={folder}", f"--page={page}", f"--pictures={folder}", f"--tensorboard={folder}/runs"]
    )
    torch.set_num_threads(threads)
    return folder


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_every_task_activation_and_seed_is_run(example, result):
    runs = rows(result / "runs.csv")
    expected = [
        (task, str(s), name) for task in ("characters", "wave") for s in range(2) for name in example.ACTIVATIONS
    ]
    assert [(run["task"], run["seed"], run["activation"]) for run in runs] == expected
    assert all(0 <= float(run["dead"]) <= 100 and float(run["loss"]) > 0 for run in runs)
    fixed = [run for run in runs if run["activation"].startswith(("leaky", "straight"))]
    assert {run["alpha"] for run in fixed} == {"0.01"}
    bounded = [run for run in runs if run["activation"].endswith("[0, 1]")]
    assert all(0 <= float(run["alpha_min"]) < float(run["alpha_max"]) <= 1 for run in bounded)


@pytest.mark.slow
def test_the_table_is_what_was_measured(result):
    runs = rows(result / "runs.csv")
    page = (result / "page.md").read_text()
    own = [float(run["score"]) for run in runs if (run["task"], run["activation"]) == ("characters", "ReLU")]
    assert f"| ReLU | {mean(own):.1f} ± " in page and "old" not in page
    assert page.startswith("before\n") and page.endswith("after\n")
    for name in ("experiment-scores.svg", "experiment-slopes.svg", "experiment-monitor.svg"):
        assert "<svg" in (result / name).read_text()
    assert (result / "experiment-images.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_tensorboard_has_every_run(result):
    assert len(list((result / "runs").glob("*/events.*"))) == len(rows(result / "runs.csv"))


def test_only_the_activation_differs(example):
    """ReLU and straight-through ReLU compute the same before the first step, and the same seed gives the same run."""
    args = type("Args", (), {"images": 640, "epochs": 1, "steps": 1, "seeds": 1, "narrow_seeds": 1})
    task = example.tasks(args)["characters"]
    task.every = 1
    first, second, again = (
        example.train("characters", task, name, seed=3) for name in ("ReLU", "straight-through, 0.01", "ReLU")
    )
    assert [row["negative"] for row in first[1].rows()[:4]] == [row["negative"] for row in second[1].rows()[:4]]
    assert first[1].rows()[-1]["negative"] != second[1].rows()[-1]["negative"]
    assert again[0].score == first[0].score and again[0].loss == pytest.approx(first[0].loss, rel=1e-5)


def test_characters_are_the_same_for_the_same_seed_and_can_be_told_apart():
    tasks = importlib.import_module("tasks")
    (x, target), (again, _), (other, _) = (tasks.characters(200, seed) for seed in (0, 0, 1))
    assert torch.equal(x, again) and not torch.equal(x, other)
    assert x.shape == (200, 1, 20, 20) and target.unique().numel() > 40
    glyphs = tasks.glyphs()[:, 0].flatten(1)
    assert torch.cdist(glyphs, glyphs).fill_diagonal_(9.0).min() > 1.0


def test_the_page_shows_the_committed_results(example, tmp_path):
    """If this fails, run `python examples/activations.py --draw`."""
    page = tmp_path / "experiment.md"
    shutil.copy(ROOT / "docs" / "experiment.md", page)
    page.write_text(re.sub(r"(<!-- table \w+ -->).*?(?=<!-- end)", r"\1\n", page.read_text(), flags=re.DOTALL))
    example.main(["--draw", f"--page={page}", f"--pictures={tmp_path}"])
    assert page.read_text() == (ROOT / "docs" / "experiment.md").read_text()
