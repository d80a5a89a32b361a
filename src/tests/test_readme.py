"""README.md and docs/: every snippet runs, every link leads somewhere, every generated part is up to date."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SNIPPET = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def snippets(document: Path, language: str) -> list[str]:
    return [code for kind, code in SNIPPET.findall(document.read_text()) if kind == language]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_python_snippets_run(document: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In order, as one program."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    namespace: dict[str, object] = {"__name__": "readme"}
    for number, code in enumerate(snippets(document, "python"), 1):
        exec(compile(code, f"{document.name}, snippet {number}", "exec"), namespace)


def test_readme_has_snippets() -> None:
    assert len(snippets(ROOT / "README.md", "python")) >= 4
    kinds = {kind for document in DOCUMENTS for kind, _ in SNIPPET.findall(document.read_text())}
    assert kinds <= {"python", "sh", "text", "cpp", "cmake"}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_exist(document: Path) -> None:
    """Commands are parsed, not run: test_benchmarks, test_packaging and .ci/run run them."""
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
    elif words[0] == "python" and words[1] != "-c":
        assert (ROOT / words[1]).is_file(), words
    elif words[0] == "python":
        exec(words[2], {})
    else:
        assert words == ["pip", "install", "."]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    text = re.sub(r"```.*?```", "", document.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not re.match(r"https?://", target):
            path, _, anchor = target.partition("#")
            file = (document.parent / path).resolve() if path else document
            assert file.exists(), target
            if anchor and file.suffix == ".md":
                headings = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
                assert anchor in [re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings], target


def test_generated_parts_are_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    """What fails here: `python -m benchmarks report` writes it anew."""
    pytest.importorskip("jsonschema")
    from benchmarks.report import report

    stale = report(check=True)
    assert not stale, capsys.readouterr().out
