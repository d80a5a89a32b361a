"""`python -m benchmarks.profile` measures the parts of each network's training step with torch.profiler."""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile

from .cases import TRAINING, Case, select
from .contenders import CONTENDERS
from .machine import ROOT, this_machine, this_run
from .problems import NetworkProblem
from .tables import MIB, duration, markdown

CONVOLUTIONS, NORMS, BIAS, GRAD_BIAS = "convolutions and products", "norms", "bias", "d(bias)"
ACTIVATION, CASTS, OPTIMIZER, REST = "activation", "casts", "optimizer", "the rest"
PARTS = (CONVOLUTIONS, NORMS, BIAS, GRAD_BIAS, ACTIVATION, CASTS, OPTIMIZER, REST)
# Part -> pattern of the names of its events. If no pattern matches an event, the nearest enclosing event that matches
# decides. Backward nodes have names such as "autograd::engine::evaluate_function: ConvolutionBackward0".
NAMES = {
    ACTIVATION: r"leaky_ext::|leaky_?relu|prelu|StraightThrough|aten::(relu|threshold_backward|clamp_min)|ReluBackward",
    NORMS: r"norm",
    CONVOLUTIONS: r"conv|aten::(mm|addmm|bmm|linear)|(Mm|Addmm|Bmm)Backward",
    OPTIMIZER: r"Optimizer|_foreach|GradScaler|_amp_",
    CASTS: r"aten::(to|_to_copy)$|ToCopyBackward",
}
WEIGHTED = re.compile(r"conv|AddmmBackward", re.IGNORECASE)
SMALLEST = 0.005  # the table leaves out smaller shares of a step
PAGE = """# Profile of a training step: {title}

Written by `python -m benchmarks.profile --write`. {run}.

Shares of an eager step with learned slopes, by torch.profiler, {threads} threads.

- "bias" and "d(bias)": separate kernels that add the bias of a convolution, and that sum its gradient. On CPUs
  PyTorch's convolutions do this themselves.
- "fused: gain at most": the time of the step divided by its time without these kernels. This is the upper bound of the
  gain if the activation adds the bias, and sums the gradient of the bias in the pass that computes grad_x.
- "fusable": the inputs of activations that are the output of a layer with a bias. For each byte of these inputs, bias,
  activation and both gradients move 8 bytes. Fused, they would move 5 bytes.

{table}"""


def part_of(event: Any) -> str:
    """Returns the part of a step that the event's own time belongs to."""
    names = [event.name]
    around = event.cpu_parent
    while around is not None:
        names.append(around.name)
        around = around.cpu_parent
    if any(WEIGHTED.search(name) for name in names[1:]):
        if names[0] == "aten::add_":
            return BIAS
        if names[0] == "aten::sum":
            return GRAD_BIAS
    for name in names:
        for part, pattern in NAMES.items():
            if re.search(pattern, name, re.IGNORECASE):
                return part
    return REST


def times(events: Iterable[FunctionEvent], device: str) -> Counter[str]:
    """Returns the microseconds of each part. On a GPU the time of a kernel counts for the call that launched it."""
    found: Counter[str] = Counter(dict.fromkeys(PARTS, 0))
    for event in events:
        if event.device_type == torch.autograd.DeviceType.CPU:
            found[part_of(event)] += event.self_device_time_total if device == "cuda" else event.self_cpu_time_total
    return found


def fusable(problem: NetworkProblem) -> int:
    """Returns the bytes of those inputs of activations that are the output of a layer with a bias."""
    model, found = problem.module(CONTENDERS["PReLU"]), [0]
    last: list[Tensor | None] = [None]

    def after(module: nn.Module, _: Any, y: Tensor) -> None:
        last[0] = y if getattr(module, "bias", None) is not None else None

    def before(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if inputs[0] is last[0]:
            found[0] += inputs[0].nbytes

    for module in model.modules():
        if isinstance(module, nn.PReLU):
            module.register_forward_pre_hook(before)
        elif isinstance(module, nn.Linear | nn.modules.conv._ConvNd):
            module.register_forward_hook(after)
    with torch.no_grad():
        problem.outputs(model)
    return found[0]


def profiled(case: Case, steps: int) -> dict[str, str]:
    """Returns a row of the table."""
    torch.set_num_threads(case.threads)
    problem = NetworkProblem(case)
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (case.device == "cuda")
    row = {"training step of": case.subject}
    for name in ("learnable", "PReLU"):
        call = problem.entry(CONTENDERS[name]).call
        for _ in range(2):
            call()
        with profile(activities=activities) as trace:
            for _ in range(steps):
                call()
            if case.device == "cuda":
                torch.cuda.synchronize()
        found = times(trace.events(), case.device)
        if name == "PReLU":
            row["activation, nn.PReLU"] = duration(found[ACTIVATION] / steps)
            continue
        row["takes"] = duration(found.total() / steps)
        row |= {part: percent(found[part] / found.total()) for part in PARTS}
        row["fused: gain at most"] = f"{found.total() / (found.total() - found[BIAS] - found[GRAD_BIAS]):.2f}"
        row["activation"] += f", {duration(found[ACTIVATION] / steps)}"
    row["fusable, MiB"] = f"{fusable(problem) / MIB:.1f}"
    return row


def percent(share: float) -> str:
    return f"{share:.0%}" if share >= SMALLEST else ""


def rows(device: str, only: str, steps: int, threads: int) -> Iterator[dict[str, str]]:
    for case in select("trained", device=device, threads=threads):
        if case.task == TRAINING and only in case.subject:
            yield profiled(case, steps)
            if device == "cuda":
                torch.cuda.empty_cache()


def parse(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profile", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--only", default="", metavar="TEXT", help="only networks with this in their names")
    parser.add_argument("--steps", type=int, default=5, help="number of profiled steps (default: %(default)s)")
    parser.add_argument(
        "--threads", type=int, default=torch.get_num_threads(), help="number of threads (default: torch's)"
    )
    parser.add_argument("--write", action="store_true", help="write the page of this machine to docs/benchmarks")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the page to this file")
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> None:
    options = parse(words)
    table: list[dict[str, str]] = []
    machine = this_machine(options.device)
    path = options.out or (ROOT / "docs/benchmarks" / f"profile-{machine.slug}.md" if options.write else None)
    for row in rows(options.device, options.only, options.steps, options.threads):
        table.append(row)
        print(" | ".join(row.values()), flush=True)
        if path:  # after each row: a later network may fail
            run = this_run(quick=False, seconds=0)
            text = markdown(pd.DataFrame(table))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(PAGE.format(title=machine.title, run=run, threads=options.threads, table=text))
    print(f"\n{markdown(pd.DataFrame(table))}")


if __name__ == "__main__":
    main()
