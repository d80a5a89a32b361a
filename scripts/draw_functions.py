#!/usr/bin/env python3
"""Draws docs/figures/functions.svg: the two functions and their gradients, as leaky_ext computes them."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("svg")
import torch
from matplotlib import pyplot as plt

import leaky_ext

FILE = Path(__file__).resolve().parent.parent / "docs" / "figures" / "functions.svg"
ALPHA = 0.25


def main() -> None:
    plt.rcParams.update({"svg.hashsalt": "leaky_ext", "axes.grid": True, "grid.color": "#d1d9e0"})
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True, layout="constrained")
    for axes, function in zip(panels, (leaky_ext.learnable_leaky_relu, leaky_ext.straight_through_relu), strict=True):
        for negative in (True, False):  # the gradients jump at 0
            x = (torch.linspace(-3, -0.001, 50) if negative else torch.linspace(0, 3, 50)).requires_grad_()
            slope = torch.full_like(x, ALPHA).requires_grad_()
            y = function(x, slope)
            grad_x, grad_alpha = torch.autograd.grad(y.sum(), (x, slope))
            curves = {"y": (y, "-"), "dy/dx": (grad_x, "--"), "dy/dalpha": (grad_alpha, ":")}
            for (name, (curve, dashes)), colour in zip(curves.items(), ("#d55e00", "#0072b2", "#009e73"), strict=True):
                label = name if negative else None
                axes.plot(x.tolist(), curve.tolist(), color=colour, linestyle=dashes, linewidth=2, label=label)
        axes.set(title=f"{function.__name__}, alpha = {ALPHA}", xlabel="x", xlim=(-3, 3), ylim=(-3, 3))
        axes.axhline(0, color="#1f2328", linewidth=0.6)
        axes.axvline(0, color="#1f2328", linewidth=0.6)
        axes.legend(frameon=False, loc="upper left")
    figure.savefig(FILE, format="svg", metadata={"Date": None})
    FILE.write_text("".join(line.rstrip() + "\n" for line in FILE.read_text().splitlines()))


if __name__ == "__main__":
    main()
