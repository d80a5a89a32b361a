"""Reads the compiler's information about kernels: the log of ptxas, and ELF sections of the code (a cubin)."""

import re
import struct
from dataclasses import dataclass

SHT_NOBITS = 8  # a section without data in the file
EIFMT_SVAL = 4  # an attribute with data; in other formats, the size field holds the value
EIATTR_PARAM_CBANK, EIATTR_KPARAM_INFO = 0x0A, 0x17


@dataclass
class Resources:
    registers: int = 0
    spills: int = 0  # bytes of stores and loads
    shared: int = 0  # bytes
    parameter_base: int = 0  # in constant bank 0
    parameter_layout: tuple = ()  # (offset, bytes) of each argument
    constants: bytes = b""  # constant bank 2: constants that the compiler created


def resources_of_log(log):
    """Returns registers, spills and shared memory by (architecture, kernel), from the output of ptxas -v."""
    found, kernel = {}, None
    for line in log.splitlines():
        if match := re.search(r"Compiling entry function '(\S+)' for 'sm_(\d+)\w?'", line):
            kernel = found.setdefault((int(match[2]), match[1]), Resources())
        elif match := re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", line):
            if kernel:
                kernel.spills = int(match[1]) + int(match[2])
        elif match := re.search(r"Used (\d+) registers", line):
            kernel.registers = int(match[1])
            shared = re.search(r"(\d+) bytes smem", line)
            kernel.shared = int(shared[1]) if shared else 0
    return found


def sections(elf):
    """Returns the sections of an ELF file, by name."""
    at, size, count, names = (*struct.unpack_from("<Q", elf, 0x28), *struct.unpack_from("<HHH", elf, 0x3A))
    headers = [struct.unpack_from("<IIQQQQ", elf, at + size * k) for k in range(count)]
    strings = headers[names]

    def name(offset):
        start = strings[4] + offset
        return elf[start : elf.index(b"\0", start)].decode()

    return {name(h[0]): elf[h[4] : h[4] + h[5]] for h in headers if h[1] != SHT_NOBITS}


def parameters_of(info):
    """Reads .nv.info. Returns the base of a kernel's parameters in the constant bank, and (offset, bytes) of each."""
    at, base, layout = 0, None, {}
    while at + 4 <= len(info):
        form, attribute, size = struct.unpack_from("<BBH", info, at)
        at += 4
        if form != EIFMT_SVAL:
            continue
        if attribute == EIATTR_PARAM_CBANK:
            base = struct.unpack_from("<IHH", info, at)[1]
        elif attribute == EIATTR_KPARAM_INFO:
            _, ordinal, offset, packed = struct.unpack_from("<IHHI", info, at)
            layout[ordinal] = (offset, packed >> 18)
        at += size
    return base, tuple(layout[k] for k in sorted(layout))
