"""The command line: run, report, compare."""

from __future__ import annotations

import argparse
from pathlib import Path

from .cases import SUITES


def parse(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="The benchmark suites of leaky_ext.")
    commands = parser.add_subparsers(dest="command", required=True)

    run = commands.add_parser("run", help="measure and write the results as JSON")
    run.add_argument("suites", nargs="*", metavar="SUITE", help=f"default: all of {', '.join(SUITES)}")
    run.add_argument("--quick", action="store_true", help="measure a few rows of each suite; git ignores the results")
    run.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    run.add_argument("--threads", type=int, help="number of threads; default: torch's")
    run.add_argument("--only", metavar="TEXT", help="only cases with this in 'subject, task, malloc'; keep other rows")
    run.add_argument("--seconds", type=float, help="time of each case in each process; default: the suite's")
    run.add_argument("--out", type=Path, metavar="FILE", help="default: benchmarks/results/MACHINE.json")

    commands.add_parser("report", help="write pages and charts from the results in benchmarks/results")

    compare = commands.add_parser("compare", help="print the rows that got slower or faster by more than the spread")
    compare.add_argument("before", type=Path)
    compare.add_argument("after", type=Path)

    arguments = parser.parse_args(words)
    unknown = set(getattr(arguments, "suites", [])) - SUITES.keys()
    if unknown:
        parser.error(f"no such suite: {', '.join(sorted(unknown))}; there are {', '.join(SUITES)}")
    return arguments


def main() -> None:
    arguments = parse()
    if arguments.command == "report":
        from .report import write

        write()
    elif arguments.command == "compare":
        from .compare import compare

        print(compare(arguments.before, arguments.after))
    else:
        from rich.console import Console

        from .charts import draw, networks
        from .results import Results
        from .run import run
        from .show import screen

        options = {name: getattr(arguments, name) for name in ("device", "quick", "threads", "only", "seconds", "out")}
        path = run(arguments.suites or list(SUITES), **options)
        results = Results.load(path)
        Console(highlight=False, soft_wrap=True).print(screen(results))
        print(f"Results: {path}")
        for chart in draw(networks, {path.stem: results}, path.with_suffix(".svg")):
            print(f"Chart: {chart}")
        print("Longer runs, on this and other machines: docs/benchmarks/README.md")


if __name__ == "__main__":
    main()
