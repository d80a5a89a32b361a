"""Builds one wheel that serves several versions of torch, build/wheel/leaky_ext-*.whl. `make wheel`.

    python scripts/wheel.py [--torch 2.11.0 2.15.0 ...] [--folder build/wheel]

Builds a wheel against each torch, each in its own virtual environment, which later runs use again. Then puts all native
modules into one wheel: leaky_ext/for_torch/2.11/_C*.so and so on. leaky_ext/_installed.py selects one at import.
FORCE_CUDA=1 adds the CUDA kernels. The wheel requires this version of Python, and a C library at least as new as this
machine's.
"""

import argparse
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
TORCH = (ROOT / "scripts" / "torch_versions.txt").read_text().split()


def build(torch, folder):
    """Returns the wheel that is built against one version of torch."""
    python, out = folder / f"venv-{torch}" / "bin" / "python", folder / torch
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", python.parents[1]], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", f"torch=={torch}"], check=True)
    shutil.rmtree(out, ignore_errors=True)
    tree = out / "tree"  # a build folder for each torch
    subprocess.run([ROOT / "scripts" / "copy_tree.sh", tree], check=True)
    variables = {"FORCE_CUDA": "0"} | os.environ
    subprocess.run([python, "-m", "pip", "wheel", "-q", "--no-deps", "-w", out, tree], env=variables, check=True)
    return next(out.glob("*.whl"))


def merge(wheels, folder):
    """Merges wheels that were built from the same sources against several versions of torch."""
    tree, minors = folder / "merged", []
    shutil.rmtree(tree, ignore_errors=True)
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(tree)
        package, facts = tree / "leaky_ext", {}
        exec((package / "_build.py").read_text(), facts)
        minors.append(tuple(map(int, facts["TORCH"].split(".")[:2])))
        place = package / "for_torch" / "{}.{}".format(*minors[-1])
        place.mkdir(parents=True)
        for file in (package / "_build.py", *package.glob("_C*.so")):
            file.rename(place / file.name)
    metadata = next(tree.glob("*.dist-info/METADATA"))
    (major, first), (_, last) = min(minors), max(minors)
    lines = [line for line in metadata.read_text().splitlines(True) if not line.startswith("Requires-Dist: torch")]
    lines.insert(3, f"Requires-Dist: torch>={major}.{first},<{major}.{last + 1}\n")  # among the headers
    metadata.write_text("".join(lines))
    subprocess.run([sys.executable, "-m", "wheel", "pack", tree, "-d", folder], check=True)  # writes RECORD anew
    return next(folder.glob("leaky_ext-*.whl"))


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--torch", nargs="+", default=TORCH)
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "wheel")
    options = parser.parse_args()
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.whl"):
        old.unlink()
    wheel = merge([build(torch, folder) for torch in options.torch], folder)
    print(f"{wheel}: {wheel.stat().st_size / 2**20:.1f} MiB, for torch {', '.join(options.torch)}")


if __name__ == "__main__":
    main()
