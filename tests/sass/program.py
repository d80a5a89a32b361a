"""Reads what `cuobjdump -sass` prints: kernels and their instructions."""

import re

from errors import Unsupported
from instructions import BUILDERS
from operands import predicate

CONTROL = {"EXIT", "BRA", "CALL", "RET", "SHFL", "BAR", "BSYNC", "WARPSYNC"}  # executed by emulator.py


class Instruction:
    """One line of code.

    `run` executes it; None for control flow. `missing` names what the emulator lacks, which is an error only if the
    instruction is reached.
    """

    def __init__(self, at, text):
        self.at, self.text, self.guard = at, text, None
        if match := re.match(r"^@(!?U?P\w+)\s+(.*)$", text):
            self.guard, text = predicate(match[1]), match[2]
        head, _, rest = text.partition(" ")
        self.op, *self.mods = head.split(".")
        self.args = [x.strip().replace(".reuse", "") for x in re.split(r",(?![^\[]*\])", rest)] if rest.strip() else []
        self.registers = {int(x) for x in re.findall(r"\bR(\d+)", rest)}
        self.missing = None
        self.run = None
        if self.op in CONTROL:
            return
        try:
            if self.op not in BUILDERS:
                raise Unsupported("unknown opcode")
            self.run = BUILDERS[self.op](self.mods, self.args)
        except (Unsupported, ValueError, IndexError, TypeError) as error:
            self.missing = f"{text} ({error})"


class Kernel:
    """The code of one kernel for one architecture. The instructions are built when the kernel runs first."""

    def __init__(self, arch):
        self.arch, self.lines = arch, []
        self._program = None

    @property
    def program(self):
        if self._program is None:
            self._program = [Instruction(at, text) for at, text in self.lines]
            self.index = {x.at: k for k, x in enumerate(self._program)}
        return self._program


def parse(text, arch):
    """Returns the kernels in the output of `cuobjdump -sass`, by name."""
    kernels, kernel = {}, None
    for line in text.splitlines():
        if match := re.match(r"\s*Function : (\S+)", line):
            kernel = kernels[match[1]] = Kernel(arch)
        elif (match := re.match(r"\s+/\*([0-9a-f]{4,6})\*/\s+(.*?)\s*;", line)) and kernel is not None:
            kernel.lines.append((int(match[1], 16), match[2]))
    return kernels
