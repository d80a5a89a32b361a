"""Measures the kernels alone, as shares of the bandwidth of torch's copy_ in the same run.

    python -m benchmarks.bandwidth [--device cuda] [--numel N] [--seconds S] [--out FILE]
    python -m benchmarks.bandwidth --once    the main kernels, once each: for a profiler

Requires only torch.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from leaky_ext.enums import INPUT, LEAKY_RELU, MASK

from .timing import Call, measure, timers

OPS = torch.ops.leaky_ext
NUMEL = 1 << 26
DTYPES = (torch.float32, torch.bfloat16)
CHANNELS, WIDTH = 64, 1024
LAYOUTS = ("flat", "nchw", "channels_last", "sliced rows")
FORWARD, FORWARD_MASK, BACKWARD, BACKWARD_MASK = "forward", "forward, mask", "backward", "backward from the mask"
MAIN = (  # the most frequent in training first
    ("channels_last", BACKWARD),
    ("channels_last", FORWARD),
    ("flat", FORWARD),
    ("flat", FORWARD_MASK),
    ("flat", BACKWARD),
    ("flat", BACKWARD_MASK),
    ("nchw", BACKWARD),
    ("sliced rows", BACKWARD),
)


def operand(layout: str, numel: int, dtype: torch.dtype, device: str) -> Tensor:
    """Returns a tensor with about numel elements."""
    if layout == "flat":
        return torch.randn(numel, device=device).to(dtype)
    if layout == "sliced rows":
        return torch.randn(max(1, numel // WIDTH), 2 * WIDTH, device=device).to(dtype)[:, :WIDTH]
    image = torch.randn(max(1, numel // (CHANNELS * 32 * 32)), CHANNELS, 32, 32, device=device).to(dtype)
    return image.contiguous(memory_format=torch.channels_last) if layout == "channels_last" else image


def calls(layout: str, numel: int, dtype: torch.dtype, device: str) -> dict[str, tuple[Call, float]]:
    """Returns the measured calls, each with the bytes that it must read and write."""
    x = operand(layout, numel, dtype, device)
    grad = torch.randn_like(x, memory_format=torch.preserve_format)
    alpha = torch.full((CHANNELS if x.dim() == 4 else 1,), 0.25, dtype=dtype, device=device)
    slope = (alpha, 0.0, 1)
    _, mask = OPS.forward_mask(x, *slope, LEAKY_RELU)
    out = torch.empty_like(grad)
    size, bits = x.numel() * x.element_size(), x.numel() / 8
    return {
        "copy_": (lambda: out.copy_(grad), 2 * size),
        FORWARD: (lambda: OPS.forward(x, *slope, LEAKY_RELU), 2 * size),
        FORWARD_MASK: (lambda: OPS.forward_mask(x, *slope, LEAKY_RELU), 2 * size + bits),
        BACKWARD: (lambda: OPS.backward(grad, x, None, *slope, INPUT, None, [True, True]), 3 * size),
        BACKWARD_MASK: (
            lambda: OPS.backward(grad, None, mask, *slope, MASK, grad.stride(), [True, False]),
            2 * size + bits,
        ),
    }


def shares(numel: int, device: str, seconds: float) -> Iterator[dict[str, Any]]:
    """Yields one row per call. Measures each dtype and layout for `seconds`."""
    for dtype in DTYPES:
        for layout in LAYOUTS:
            with torch.no_grad():
                jobs = calls(layout, numel, dtype, device)
                taken = timers({name: call for name, (call, _) in jobs.items()}, device)
                samples = measure(taken, seconds=seconds)
            rates = {name: size / statistics.median(samples[name]) / 1e3 for name, (_, size) in jobs.items()}
            for name, rate in rates.items():
                yield {
                    "dtype": str(dtype).removeprefix("torch."),
                    "layout": layout,
                    "call": name,
                    "microseconds": round(statistics.median(samples[name]), 1),
                    "gb_per_second": round(rate, 1),
                    "share_of_copy": round(rate / rates["copy_"], 3),
                }


def once(numel: int, device: str) -> None:
    """Runs the main kernels, once each in each dtype, half precision first."""
    with torch.no_grad():
        for dtype in reversed(DTYPES):
            for layout, name in MAIN:
                calls(layout, numel, dtype, device)[name][0]()


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bandwidth", description=__doc__)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--numel", type=int, default=NUMEL, help="number of elements (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=1.0, help="time per dtype and layout (default: %(default)s)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the rows to this file as JSON")
    parser.add_argument("--once", action="store_true", help="only run the main kernels once each")
    options = parser.parse_args(words)
    if options.once:
        once(options.numel, options.device)
        return
    rows = []
    for row in shares(options.numel, options.device, options.seconds):
        rows.append(row)
        label = f"{row['dtype']:10}{row['layout']:15}{row['call']:24}{row['microseconds']:10.1f} us"
        print(f"{label}{row['gb_per_second']:9.1f} GB/s{row['share_of_copy']:8.1%}", flush=True)
        if options.out:
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(json.dumps({"numel": options.numel, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
