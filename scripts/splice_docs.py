#!/usr/bin/env python3
"""Writes the generated parts of README.md and docs/*.md: what stands between <!-- begin NAME --> and <!-- end NAME -->.

NAME is `networks` (what a training step gains, from benchmarks/results) or `file PATH`, which takes in a Markdown file
without its title. With --check nothing is written; status 1 where something, docs/benchmarks included, is out of date.
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

MARKED = re.compile(r"(<!-- begin (?P<name>[^>]+?) -->\n).*?(<!-- end (?P=name) -->)", re.DOTALL)
SECTIONS: dict[str, Callable[[], str]] = {"networks": lambda: report.headline(results.load_all())}


def included(path: str) -> str:
    """A Markdown file without its title; its links are made to work from the root."""
    text = re.sub(r"\A# .*\n+", "", (ROOT / path).read_text())
    return re.sub(r"(\]\()(?!https?://|#|/)", rf"\g<1>{Path(path).parent}/", text).strip() + "\n"


def fill(text: str) -> str:
    def section(match: re.Match[str]) -> str:
        kind, _, path = match["name"].partition(" ")
        content = included(path) if kind == "file" else SECTIONS[match["name"]]()
        return f"{match[1]}\n{content}\n{match[3]}"

    return MARKED.sub(section, text)


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
