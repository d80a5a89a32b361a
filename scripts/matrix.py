"""Builds and tests against each torch, and writes the table, docs/versions.md.

    python scripts/matrix.py [--torch 2.14.1 ...] [--python python3.12 ...] [--folder build/matrix]

Each combination gets its own virtual environment and build. It runs the tests that are not slow, except the tests of
the kernels without torch. Later runs use the environments in the folder again, and the table keeps the rows of earlier
runs. If a torch cannot be installed for a Python, the row says so. The wheels of torch on PyPI have CUDA. They also
work on the CPU, and leaky_ext is built without CUDA kernels.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
NO_TORCH = ["test_cuda_host.py", "test_instruction_sets.py"]
PYTEST_ARGUMENTS = os.environ.get("PYTEST_ARGUMENTS", "").split()
TORCH = (ROOT / "scripts" / "torch_versions.txt").read_text().split()


def run(log, *command, cwd=ROOT, **environment):
    """Runs a command with its output in the log. Returns whether it succeeded."""
    with log.open("a") as file:
        print("$", *command, file=file, flush=True)
        arguments = [str(word) for word in command]
        process = subprocess.run(arguments, stdout=file, stderr=file, cwd=cwd, env=os.environ | environment)
        return process.returncode == 0


def attempt(python, torch, place):
    """Builds and tests. Returns the outcome, the seconds of the build, and the summary of the tests."""
    place.mkdir(parents=True, exist_ok=True)
    log, venv = place / "log.txt", place / "venv"
    log.write_text("")
    pip = [venv / "bin" / "python", "-m", "pip", "--disable-pip-version-check", "install", "-q"]
    if not venv.exists() and not run(log, python, "-m", "venv", venv):
        return "no such Python here", "", ""
    if not (run(log, *pip, f"torch=={torch}") and run(log, *pip, "--require-hashes", "-r", ROOT / "requirements.txt")):
        shutil.rmtree(venv)
        return "cannot be installed", "", ""
    tree = place / "tree"
    subprocess.run([ROOT / "scripts" / "copy_tree.sh", tree], check=True)
    start = time.monotonic()
    built = run(log, *pip, "--no-build-isolation", "--no-deps", "-e", tree, FORCE_CUDA="0")
    if not built:
        return "does not build", f"{time.monotonic() - start:.0f} s", ""
    seconds = f"{time.monotonic() - start:.0f} s"
    pytest = [venv / "bin" / "python", "-m", "pytest", "-q", "-m", "not slow", *PYTEST_ARGUMENTS]
    passed = run(log, *pytest, *(f"--ignore=tests/{name}" for name in NO_TORCH), cwd=tree)
    closing = re.findall(r"^.*\d+ (?:passed|failed|error).*$", log.read_text(), re.M)
    counts = re.sub(r" in .*|=", "", closing[-1]).strip() if closing else "no test ran"
    return "passed" if passed else "FAILED", seconds, counts


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--torch", nargs="+", default=TORCH)
    parser.add_argument("--python", nargs="+", default=[sys.executable], help="interpreters (default: this one)")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "matrix")
    options = parser.parse_args()
    for python in options.python:
        version = subprocess.run([python, "--version"], capture_output=True, text=True, check=True).stdout.split()[-1]
        for torch in options.torch:
            print(f"Python {version}, torch {torch} ...", flush=True)
            place = options.folder.resolve() / f"{Path(python).name}-torch{torch}"
            row = f"| {version} | {torch} | {' | '.join(attempt(python, torch, place))} |"
            (place / "row.md").write_text(row + "\n")
            print(row, flush=True)
    rows = sorted(file.read_text() for file in options.folder.glob("*/row.md"))
    table = "".join(["| Python | torch | | build | tests |\n", "| --- | --- | --- | --- | --- |\n", *rows])
    (ROOT / "docs" / "versions.md").write_text(f"# Versions of torch and Python\n\n{table}")
    print(table)
    return int("FAILED" in table or "does not build" in table)


if __name__ == "__main__":
    sys.exit(main())
