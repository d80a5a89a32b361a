"""The table of instructions.

An opcode's builder is called once per instruction, with its modifiers and arguments. It returns `run(machine, mask)`,
which executes the instruction in the threads of `mask` (None: all).
"""

import functools

from errors import Unsupported

BUILDERS = {}


def opcode(*names, named=False):
    """Registers a builder for these opcodes. If `named`, the builder also gets the opcode, as `name`."""

    def register_builder(builder):
        for name in names:
            BUILDERS[name] = functools.partial(builder, name=name) if named else builder
        return builder

    return register_builder


def needs(condition, what="this form"):
    if not condition:
        raise Unsupported(what)
