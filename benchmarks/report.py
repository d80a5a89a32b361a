"""`python -m benchmarks report` writes docs/benchmarks/ and charts in docs/figures/ from benchmarks/results/*.json."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from . import charts, tables
from .cases import BOTH, FORWARD, GRAPHED, INFERENCE, THEN_READ, TRAINING, size_name
from .contenders import BOUNDED, BY_HAND, CHOICES, MAIN, NETWORK_CONTENDERS, SMALL
from .machine import ROOT
from .results import RESULTS, Results, load_all
from .tables import (
    OWN,
    by_case,
    by_network,
    describe,
    duration,
    in_full,
    markdown,
    memory,
    pick,
    ratios,
    speedup,
    training_steps,
    versus,
)

PAGES, FIGURES = ROOT / "docs" / "benchmarks", ROOT / "docs" / "figures"
HOW_TO_READ = (
    "A ratio is the time of PyTorch's own activation divided by the time of leaky_ext's, in the same processes: 1.25 "
    "means 1.25 times as fast, **bold** means slower. [How the figures are measured](../performance.md)."
)
HOW = {
    "networks": "eager",
    "networks-compiled": "compiled",
    "trained": "as people train, eager",
    "trained-compiled": "as people train, compiled",
}
# The precisions of the suite trained. Networks without images have no channels_last.
PRECISIONS = {"fp32": "float32, as trained", "fp32, channels_last": "float32, channels_last"}
PRECISIONS |= {f"bf16{layout}": "bfloat16 autocast, channels_last" for layout in ("", ", channels_last")}
PRECISIONS |= {f"fp16{layout}": "float16 autocast, channels_last" for layout in ("", ", channels_last")}
MODULES = OWN | {"straight-through / LeakyReLU": ("straight-through", "LeakyReLU")}
MODULES |= {f"{ours} / {other}": (ours, other) for ours, other in BOUNDED.items()}
NOTHING = "No results are committed yet: `python -m benchmarks run` and `python -m benchmarks report` write them.\n"


def headline(results: dict[str, Results], link: str = "docs/benchmarks/", suite: str = "networks") -> str:
    """Returns the speed-ups of training steps: one table per machine with rows of the suite or its compiled half."""
    parts = []
    for name, result in results.items():
        frame = pick(result.frame(), suite=(suite, f"{suite}-compiled"), task=TRAINING, malloc="default")
        cases = by_case(frame).sort_values("compiled", kind="stable")
        if cases.empty:
            continue
        table = pd.concat([cases[["subject", "compiled"]], versus(cases, tables.IN_NETWORKS)], axis=1)
        table = table.pivot(index="subject", columns="compiled", values=list(tables.IN_NETWORKS))
        table = table.reindex(cases["subject"].unique()).dropna(axis="columns", how="all")
        table.loc["median"] = table.median()
        shown = pd.DataFrame({"training step of": table.index})
        for compiled, word in ((False, ""), (True, "compiled: ")):
            for pair in tables.IN_NETWORKS:
                if (pair, compiled) in table:
                    shown[word + pair] = table[pair, compiled].map(speedup).values
        runs = "; ".join(sorted({str(run) for name, run in result.runs.items() if name.startswith(suite)}))
        parts += [f"{result.machine.title}; {runs} ([all rows]({link}{name}.md)):", markdown(shown)]
    return "\n\n".join(part.rstrip() for part in parts) + "\n" if parts else NOTHING


def medians(
    results: dict[str, Results],
    kind: str,
    suites: tuple[str, ...] = ("networks", "trained"),
    link: str = "docs/benchmarks/",
) -> str:
    """Returns a table of the training steps on all machines of a kind ("cpu" or "cuda").

    It has a line for each machine and precision. A cell has the median, minimum and maximum over the networks.
    """
    lines = []
    for name, result in results.items():
        frame = pick(result.frame(), suite=suites, task=TRAINING, malloc="default", device=kind)
        cases = by_case(frame)
        labels = cases["subject"].str.extract(r"\(((?:fp32|bf16|fp16).*)\)")[0].map(PRECISIONS).fillna("float32")
        for label in labels.drop_duplicates():
            table = versus(cases[labels == label], tables.IN_NETWORKS)
            lines.append(
                {
                    {"cpu": "CPU", "cuda": "GPU"}[kind]: f"[{result.machine.title}]({link}{name}.md)",
                    "in": label,
                    "networks": len(table),
                    **{pair: spread(table[pair]) for pair in table},
                }
            )
    return markdown(pd.DataFrame(lines).dropna(axis="columns", how="all").fillna("")) if lines else NOTHING


def spread(ratios: pd.Series) -> str | None:
    if ratios.isna().all():
        return None
    return f"{ratios.median():.2f} ({ratios.min():.2f} to {ratios.max():.2f})"


def memory_of_networks(results: dict[str, Results]) -> str:
    """Returns the MiB that an eager float32 step keeps. They are the same on every CPU: the first machine has them."""
    found = training_steps(results)
    if found is None:
        return NOTHING
    kept, peak = (by_network(found[1], column) for column in ("kept", "peak"))
    shown = pd.DataFrame({"MiB kept for a training step of": kept.index})
    for title, name in CHOICES.items():
        shown[title] = kept[name].map(tables.mebibytes).values
    shown["share of nn.PReLU"] = (kept[SMALL] / kept["PReLU"]).map("{:.2f}".format).values
    shown["share of its peak"] = (peak[SMALL] / peak["PReLU"]).map("{:.2f}".format).values
    return markdown(shown)


def page(result: Results) -> str:
    """Returns the page of one machine."""
    machine, frame = result.machine, result.frame()
    facts = [machine.cpu, f"{machine.cores} cores", f"{machine.memory_gib} GiB", machine.caches, machine.system]
    runs = [{"suite": s, "measured with": str(r), "took": f"{r.seconds:.0f} s"} for s, r in result.runs.items()]
    configs = dict.fromkeys(run.config for run in result.runs.values())
    config = "".join(f"```text\n{text.strip()}\n```\n\n" for text in configs)
    parts = [
        f"# {machine.title}",
        "Written by `python -m benchmarks report`. " + "; ".join(fact for fact in facts if fact) + ".",
        HOW_TO_READ, markdown(pd.DataFrame(runs)), config,
    ]  # fmt: skip
    for title, text in sections(frame):
        if text != "No rows.\n":
            parts += [f"## {title}", text]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def sections(frame: pd.DataFrame) -> Iterator[tuple[str, str]]:
    kept = {"default": "", "kept": ", memory kept by glibc"}
    for suite, how in HOW.items():
        for task in (TRAINING, GRAPHED, INFERENCE):
            for malloc, words in kept.items():
                rows = pick(frame, suite=suite, task=task, malloc=malloc)
                yield f"Networks, {task}, {how}{words}", ratios(rows, describe, tables.IN_NETWORKS)
        rows = pick(frame, suite=suite, malloc="default")
        yield f"Networks, {how}: MiB kept for backward", memory(rows, NETWORK_CONTENDERS)
        yield f"Networks, {how}: peak of a training step, MiB", memory(rows, NETWORK_CONTENDERS, "peak")

    yield from operators(pick(frame, suite="operators"), kept)

    compiled = pick(frame, suite="compiled")
    pairs = OWN | {"learnable / where": ("learnable", "where")}
    yield "Compiled, forward + backward", ratios(compiled, describe, pairs)
    yield "Compiled: MiB kept for backward", memory(compiled, (*MAIN, "where"))
    calls, host = pick(frame, suite="calls"), pick(frame, suite="host")
    yield "Calls of 100 elements", markdown(times(calls))
    yield "Calls of modules, 100 elements, 1 thread", markdown(times(host))
    yield "Calls of modules: how many times as fast", ratios(host, lambda case: case.task, MODULES)
    yield "Not timed", markdown(not_timed(frame))
    yield "All rows", markdown(everything(frame))


def operators(frame: pd.DataFrame, kept: dict[str, str]) -> Iterator[tuple[str, str]]:
    flat = pick(frame, group="", layout="flat")
    pairs = OWN | {"learnable / LeakyReLU": ("learnable", "LeakyReLU")}
    for task in (BOTH, FORWARD, THEN_READ):
        for (dtype, threads, malloc), rows in pick(flat, task=task).groupby(["dtype", "threads", "malloc"], sort=False):
            title = f"Operators, {task}, {dtype}, {tables.threads_name(threads)}{kept[malloc]}"
            yield title, ratios(rows, lambda case: size_name(case.numel), pairs, "elements")
    by_hand = {f"{ours} / {other}": (ours, other) for ours, names in BY_HAND.items() for other in names}
    hand = pick(frame, group="by hand")
    yield "Operators compared with formulas written by hand, forward + backward", ratios(hand, describe, by_hand)
    channels = {"learnable / PReLU": ("learnable", "PReLU"), "learnable / oneDNN": ("learnable", "oneDNN")}
    layouts = pick(frame, layout=("nchw", "channels_last"))
    for task in (BOTH, FORWARD):
        yield f"Operators with a slope per channel, {task}", ratios(pick(layouts, task=task), describe, channels)


def times(frame: pd.DataFrame) -> pd.DataFrame:
    table = frame.pivot_table(index="contender", columns="task", values="time", sort=False)
    return table.map(duration).reset_index()


def not_timed(frame: pd.DataFrame) -> pd.DataFrame:
    rows = frame[frame["problem"] != ""]
    labels = [in_full(case) for case in rows.itertuples()]
    return pd.DataFrame({"": labels, "contender": rows["contender"], "why": rows["problem"]})


def everything(frame: pd.DataFrame) -> pd.DataFrame:
    rows = frame[frame["problem"] == ""]
    return pd.DataFrame(
        {
            "": [in_full(case) for case in rows.itertuples()],
            "contender": rows["contender"],
            "time": rows["time"].map(duration),
            "quartiles": [f"{duration(a)} to {duration(b)}" for a, b in zip(rows["low"], rows["high"], strict=True)],
            "processes": rows["times"].map(len),
            "kept, MiB": rows["kept"].map(tables.mebibytes),
            "beyond input and output": rows["beyond"].map(tables.mebibytes),
            "peak, MiB": rows["peak"].map(tables.mebibytes),
        }
    )


def index(results: dict[str, Results]) -> str:
    written = "Written by `python -m benchmarks report` from benchmarks/results."
    parts = ["# Benchmarks", written, HOW_TO_READ, headline(results, link="")]
    trained = headline(results, link="", suite="trained")
    if trained != NOTHING:
        parts += ["## As people train", trained]
    if charts.networks(results) is not None:
        networks = "![MiB kept and time of a training step, in shares of PReLU's](../figures/networks.svg)"
        parts += ["## Memory of networks", networks]
    if charts.speed_up(results) is not None:  # the results have rows for it
        speed_up = "![Speed-up over PyTorch's own against the number of elements](../figures/speed-up.svg)"
        parts += ["## Operators by size", speed_up]
    if charts.memory(results) is not None:
        parts += ["## Memory", "![Bytes per element kept for backward](../figures/memory.svg)"]
    return "\n\n".join(part.rstrip() for part in parts) + "\n"


def pages(folder: Path = RESULTS) -> dict[Path, str]:
    """Returns the text of every page by path."""
    results = load_all(folder)
    texts = {PAGES / f"{name}.md": page(result) for name, result in results.items()}
    return {PAGES / "README.md": index(results), **texts}


def write(folder: Path = RESULTS) -> None:
    for path, text in pages(folder).items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        print(path.relative_to(ROOT))
    for path in charts.draw_all(load_all(folder), FIGURES):
        print(path.relative_to(ROOT))
