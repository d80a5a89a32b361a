"""Builds and tests against each torch, and prints the table.

    python scripts/matrix.py [--torch 2.14.1 ...] [--python python3.12 ...] [--folder build/matrix]

Each combination gets a virtual environment, a build of its own and a run of the tests that are not slow; what an
earlier run left in the folder is used again. A torch that cannot be installed for a Python is said so. torch's CUDA
wheels, which the registry gives on Linux, import and are tested on the CPU too, and are built without CUDA kernels.
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
TORCH = ["2.11.0", "2.12.1", "2.13.0", "2.14.1", "2.15.0"]


def run(log, *command, **environment):
    """Whether the command succeeded; what it says goes to the log."""
    with log.open("a") as file:
        print("$", *command, file=file, flush=True)
        arguments = [str(word) for word in command]
        return subprocess.run(arguments, stdout=file, stderr=file, env=os.environ | environment).returncode == 0


def attempt(python, torch, folder):
    """One row of the table."""
    place = folder / f"{Path(python).name}-torch{torch}"
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
    passed = run(
        log, venv / "bin" / "python", "-m", "pytest", "-q", "-m", "not slow", "-p", "no:cacheprovider", tree / "tests"
    )
    closing = re.findall(r"^.*\d+ (?:passed|failed|error).*$", log.read_text(), re.M)
    counts = re.sub(r" in .*|=", "", closing[-1]).strip() if closing else "no test ran"
    return "passed" if passed else "FAILED", seconds, counts


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--torch", nargs="+", default=TORCH)
    parser.add_argument("--python", nargs="+", default=[sys.executable], help="interpreters (default: this one)")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "matrix")
    options = parser.parse_args()
    rows = ["| Python | torch | | build | tests |", "| --- | --- | --- | --- | --- |"]
    for python in options.python:
        version = subprocess.run([python, "--version"], capture_output=True, text=True, check=True).stdout.split()[-1]
        for torch in options.torch:
            print(f"Python {version}, torch {torch} ...", flush=True)
            outcome, build, tests = attempt(python, torch, options.folder.resolve())
            rows.append(f"| {version} | {torch} | {outcome} | {build} | {tests} |")
    table = "\n".join(rows)
    (options.folder / "table.md").write_text(table + "\n")
    print(table)
    return int("FAILED" in table or "does not build" in table)


if __name__ == "__main__":
    sys.exit(main())
