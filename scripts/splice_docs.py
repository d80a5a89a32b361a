#!/usr/bin/env python3
"""Writes the generated parts of README.md and docs/*.md: the text between <!-- NAME --> and <!-- /NAME -->.

NAME is one of SECTIONS. --check writes nothing: the exit status is 1 if a part, or a page of docs/benchmarks, is out of
date.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import report, results  # noqa: E402

MARKED = re.compile(r"(<!-- (?P<name>\w+) -->\n).*?(<!-- /(?P=name) -->)", re.DOTALL)


def chart(path: str, title: str) -> str:
    return f"![{title}]({path})\n" if (report.FIGURES / Path(path).name).is_file() else report.NOTHING


SECTIONS: dict[str, Callable[[], str]] = {
    "chart": lambda: chart("docs/figures/networks.svg", "Memory and time of a training step, in shares of PReLU's"),
    "trained": lambda: report.headline(results.load_all(), link="benchmarks/", suite="trained"),
    "steps": lambda: "\n".join(report.medians(results.load_all(), kind) for kind in ("cpu", "cuda")),
    "compiled": lambda: report.medians(results.load_all(), "cpu", ("networks-compiled",), "benchmarks/"),
    "memory": lambda: report.memory_of_networks(results.load_all()),
    "kept": lambda: chart("figures/memory.svg", "Bytes per element kept for backward"),
}


def fill(text: str) -> str:
    return MARKED.sub(lambda match: f"{match[1]}\n{SECTIONS[match['name']]()}\n{match[3]}", text)


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args(words).check
    documents = {path: fill(path.read_text()) for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}
    if check:
        documents |= report.pages()
    stale = [path for path, text in documents.items() if not path.is_file() or path.read_text() != text]
    for path in stale:
        print(f"{'out of date' if check else 'written'}: {path.relative_to(ROOT)}")
        if not check:
            path.write_text(documents[path])
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
