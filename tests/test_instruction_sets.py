"""Every instruction set passes the tests of the kernels, and an unknown one raises."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from slow import slow_but

ROOT = Path(__file__).parent.parent


def run(instruction_set: str | None, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "LEAKY_EXT_CPU"}
    if instruction_set:
        environment["LEAKY_EXT_CPU"] = instruction_set
    return subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True, cwd=ROOT)


def available() -> list[str]:
    level = torch.backends.cpu.get_cpu_capability()
    return ["baseline"] + ["avx2"] * (level in ("AVX2", "AVX512")) + ["avx512"] * (level == "AVX512")


# All other tests run with the widest.
@pytest.mark.parametrize("test", slow_but(["kernels", "layouts"], "kernels"))
@pytest.mark.parametrize("instruction_set", slow_but(available()[:-1], "avx2"))
def test_another_instruction_set(instruction_set: str, test: str) -> None:
    shown = run(instruction_set, "-c", "import leaky_ext; print(leaky_ext.show_config())")
    assert instruction_set in shown.stdout, shown.stderr
    result = run(instruction_set, "-m", "pytest", "-q", "-x", "-m", "not slow", f"tests/test_{test}.py")
    assert result.returncode == 0, result.stdout[-4000:]


@pytest.mark.parametrize("instruction_set", ["avx2", "avx512"])
def test_all_that_the_loops_are_compiled_for_is_asked_of_the_machine(instruction_set: str) -> None:
    targets = re.findall(r'target\(+"([\w,]+)"', (ROOT / f"csrc/cpu/loops_{instruction_set}.cpp").read_text())
    source = (ROOT / "csrc/cpu/dispatch.cpp").read_text()
    bodies = dict(re.findall(r"^bool has_(\w+)\(\) \{(.*?)^\}", source, re.DOTALL | re.MULTILINE))
    asked = bodies[instruction_set].replace("has_avx2()", bodies["avx2"])
    checked = set(re.findall(r'(?:supports\("|bit_)(\w+)', asked.replace("F16C", "f16c")))
    assert len(targets) == 2  # for GCC and clang
    assert all(set(target.split(",")) <= checked for target in targets)


def test_the_default_is_the_widest() -> None:
    shown = run(None, "-c", "import leaky_ext; print(leaky_ext.show_config())")
    assert f"CPU:       {available()[-1]}" in shown.stdout


def test_unknown_name_is_refused() -> None:
    result = run("sse9", "-c", "import torch, leaky_ext; leaky_ext.learnable_leaky_relu(torch.ones(3), 0.1)")
    assert result.returncode != 0 and "LEAKY_EXT_CPU is 'sse9', not baseline, avx2 or avx512" in result.stderr
