"""`python -m benchmarks.capacity --gib 8`: the largest batch whose training step fits into a GPU's memory.

Prints one row per network and one column per activation. PyTorch's allocator limits the memory, so a large GPU can
simulate a small one. Does not measure times.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import pandas as pd
import torch

from .cases import TRAINING, Case
from .contenders import CHOICES, CONTENDERS
from .problems import NetworkProblem
from .tables import markdown

SUBJECTS = ("Real-ESRGAN compact, 256 px", "iResNet-50", "MONAI UNet 2-D", "Conv-TasNet, 1 s")


def largest(fits: Callable[[int], bool], limit: int = 1 << 14) -> int:
    """Returns the largest number up to `limit` that fits, or 0. If a number fits, all smaller ones must fit too."""
    good, bad = 0, 1
    while bad <= limit and fits(bad):
        good, bad = bad, 2 * bad
    bad = min(bad, limit + 1)
    while bad - good > 1:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if fits(middle) else (good, middle)
    return good


def step_fits(subject: str, contender: str, batch: int) -> bool:
    """Returns whether the memory is enough for a training step with this number of examples."""
    torch.cuda.empty_cache()
    try:
        network = NetworkProblem(Case(suite="capacity", subject=subject, task=TRAINING, contenders=(), device="cuda"))
        network.x = network.x[:1].expand(batch, *network.x.shape[1:]).clone()
        network.entry(CONTENDERS[contender]).call()
    except torch.OutOfMemoryError:
        return False
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--gib", type=float, default=8.0, help="memory that may be allocated; default: 8")
    gib = parser.parse_args().gib
    torch.cuda.set_per_process_memory_fraction(gib * 2**30 / torch.cuda.get_device_properties(0).total_memory)
    rows = []
    for subject in SUBJECTS:
        row = {"largest batch": subject}
        for title, name in CHOICES.items():
            row[title] = str(largest(lambda batch, subject=subject, name=name: step_fits(subject, name, batch)))
        rows.append(row)
    print(f"{torch.cuda.get_device_name()}, {gib:g} GiB, torch {torch.__version__}, float32\n")
    print(markdown(pd.DataFrame(rows)))


if __name__ == "__main__":
    main()
