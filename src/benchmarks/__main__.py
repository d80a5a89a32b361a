"""The command line: run, report, compare."""

from __future__ import annotations

import argparse
import json
from pathlib import Path


def parse(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="The benchmark suite of leaky_ext.")
    commands = parser.add_subparsers(dest="command", required=True)

    run = commands.add_parser("run", help="measure, and write the results as JSON")
    suite = run.add_mutually_exclusive_group()
    suite.add_argument("--quick", dest="suite", action="store_const", const="quick", help="under a minute (default)")
    suite.add_argument("--full", dest="suite", action="store_const", const="full", help="what is committed")
    run.set_defaults(suite="quick")
    run.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    run.add_argument("--threads", type=int, help="the most threads to measure with (default: torch's)")
    run.add_argument("--filter", default="", metavar="REGEX", help="only rows whose label matches; --list shows labels")
    run.add_argument("--list", action="store_true", help="show the labels of the rows, and measure nothing")
    run.add_argument(
        "--out", type=Path, metavar="FILE", help="default: benchmarks/results/<device>.json, or .quick.json"
    )

    report = commands.add_parser("report", help="tables, charts and the README's figures from committed results")
    report.add_argument("--check", action="store_true", help="write nothing; status 1 where something is out of date")

    compare = commands.add_parser("compare", help="what got slower, and what faster, beyond the spread")
    compare.add_argument("before", type=Path)
    compare.add_argument("after", type=Path)
    return parser.parse_args(words)


def main() -> int:
    arguments = parse()
    if arguments.command == "run":
        return run_command(arguments)
    if arguments.command == "report":
        from .report import report as write_report

        return write_report(check=arguments.check)
    from .compare import compare as show_comparison

    print(show_comparison(arguments.before, arguments.after))
    return 0


def run_command(arguments: argparse.Namespace) -> int:
    import torch

    from .cases import select
    from .run import run

    if arguments.list:
        threads = arguments.threads or torch.get_num_threads()
        for case in select(arguments.device, arguments.suite, threads, arguments.filter):
            print(case.label)
        return 0
    if arguments.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("torch finds no CUDA device")
    path = run(arguments.device, arguments.suite, arguments.filter, arguments.out, arguments.threads)
    from .tables import summary

    print(summary(json.loads(path.read_text())))
    print(path)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
