"""README.md and docs/: snippets run, links have a target, and lists are complete."""

from __future__ import annotations

import doctest
import pkgutil
import re
import shlex
import sys
import types
from pathlib import Path

import pytest
import torch

import leaky_ext

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *PAGES]
SNIPPET = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))


def snippets(document: Path, language: str) -> list[str]:
    return [code for kind, code in SNIPPET.findall(document.read_text()) if kind == language]


@each_document
def test_python_snippets_run(document: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs the snippets of a page in order, as one program."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    module = types.ModuleType("readme")
    monkeypatch.setitem(sys.modules, "readme", module)  # torch.compile imports what it compiles
    for number, code in enumerate(snippets(document, "python"), 1):
        exec(compile(code, f"{document.name}, snippet {number}", "exec"), module.__dict__)


@each_document
def test_snippets_are_of_a_language_that_is_checked(document: Path) -> None:
    assert {kind for kind, _ in SNIPPET.findall(document.read_text())} <= {"python", "sh", "text", "cpp", "cmake"}


@each_document
def test_commands_exist(document: Path) -> None:
    """Commands are parsed, not run: test_benchmark_runs, test_packaging and .ci/run run them."""
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for block in snippets(document, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            while words:
                end = words.index("&&") if "&&" in words else len(words)
                command = [word for word in words[:end] if not re.fullmatch(r"[A-Z_]+=.*", word)]
                check_command(command, targets)
                words = words[end + 1 :]


def check_command(words: list[str], targets: list[str]) -> None:
    if words[0] == "make":
        assert set(words[1:]) <= set(targets), words
    elif words[:3] == ["python", "-m", "benchmarks"]:
        from benchmarks.__main__ import parse

        parse(words[3:])
    elif words[:3] == ["python", "-m", "benchmarks.profile"]:
        from benchmarks.profile import parse as parse_profile

        parse_profile(words[3:])
    elif words[:3] == ["python", "-m", "pytest"]:
        assert all((ROOT / word).exists() for word in words[3:] if word.endswith(".py")), words
    elif words[:2] == ["python", "-c"]:
        exec(words[2], {})
    elif words[0] == "python" and words[1] != "-m":
        assert (ROOT / words[1]).is_file(), words
    else:
        known = (["pip", "install", "."], ["pip", "install", "torch", "numpy"], ["python", "-m", "build", "--sdist"])
        known += (["python3", "-m", "venv", "env"], [".", "env/bin/activate"])
        assert words in known or words[0] in ("cmake", "ctest", "cd", "git"), words


@each_document
def test_links_lead_somewhere(document: Path) -> None:
    for target in LINK.findall(re.sub(r"```.*?```", "", document.read_text(), flags=re.DOTALL)):
        if not re.match(r"https?://", target):
            path, _, anchor = target.partition("#")
            file = (document.parent / path).resolve() if path else document
            assert file.exists(), target
            if anchor and file.suffix == ".md":
                headings = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
                assert anchor in [re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings], target


def test_the_list_of_pages_names_every_page() -> None:
    """Except README.md itself, index.md, which includes it, and generated pages of a listed page."""
    index = DOCS / "README.md"
    listed = {(DOCS / target).resolve() for target in LINK.findall(index.read_text())}
    own = {path for path in PAGES if path.parent != DOCS / "benchmarks"}
    assert own - listed == {index, DOCS / "index.md"}


def test_the_api_page_has_every_public_name() -> None:
    named = re.findall(r"^\.\. (?:auto|py:)\w+:: leaky_ext\.([\w.]+)$", (DOCS / "api.md").read_text(), re.MULTILINE)
    assert set(leaky_ext.__all__) <= set(named)
    for name in named:
        pkgutil.resolve_name(f"leaky_ext.{name}")  # or it raises


@pytest.mark.parametrize("name", sorted(set(leaky_ext.__all__) - {"__version__"}))
def test_examples_in_docstrings_give_what_they_say(name: str) -> None:
    runner, names = doctest.DocTestRunner(), {"leaky_ext": leaky_ext, "torch": torch}
    for test in doctest.DocTestFinder().find(getattr(leaky_ext, name), name, globs=names):
        assert runner.run(test).failed == 0


READ = (
    r'getenv\("(\w+)"',
    r'environ(?:\.get\(|\.setdefault\(|\[)"(\w+)"',
    r"\$\{([A-Z][A-Z_]+):[-+]",
    r"^(?:export )?([A-Z][A-Z_]+) \?=",
)
NOT_OURS = {"PATH", "LD_PRELOAD", "ASAN_OPTIONS", "UBSAN_OPTIONS"}


def test_the_page_of_environment_variables_is_complete() -> None:
    sources = [ROOT / "setup.py", ROOT / "Makefile", ROOT / ".ci" / "run", DOCS / "conf.py"]
    for folder in ("csrc", "leaky_ext", "scripts", "build_backend"):
        sources += [path for path in (ROOT / folder).rglob("*.*") if path.suffix not in (".so", ".pyc")]
    text = "\n".join(path.read_text() for path in sources)
    read = {name for pattern in READ for name in re.findall(pattern, text, re.MULTILINE)} - NOT_OURS
    rows = re.findall(r"^\| (`[^|]*) \|", (DOCS / "environment.md").read_text(), re.MULTILINE)
    listed = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert read - listed == set()
    assert listed - read == set()
