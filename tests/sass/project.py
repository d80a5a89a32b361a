"""The project, compiled: each kernel's code and resources, and its host code as a library that records launches."""

import ctypes
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import emulator
from memory import Fault, Unsupported

HERE = Path(__file__).resolve().parent
DTYPES = ("float64", "float32", "float16", "bfloat16")  # numbered as in recorder.cpp
KINDS = ("input", "output", "output+mask", "mask")

NO_CUOBJDUMP = """no cuobjdump found. It comes with the full CUDA toolkit (put its bin folder on PATH), or from PyPI:
    {python} -m pip install nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm
(both: cuobjdump calls nvdisasm). A virtual environment will do: run this with its Python, or put its bin on PATH."""


def fail(message):
    raise SystemExit(f"check.py: {message}")


def run(command, **options):
    try:
        return subprocess.run([str(x) for x in command], capture_output=True, text=True, **options)
    except FileNotFoundError:
        fail(f"{command[0]} is not on PATH")


def find_cuobjdump():
    """From PATH, or from a package beside this Python or beside one on PATH."""
    folders = [Path(x) for x in os.environ.get("PATH", "").split(os.pathsep) if x]
    homes = [Path(x) for x in sys.path] + [lib for x in folders for lib in x.parent.glob("lib/python3*/site-packages")]
    folders += [x for home in homes for x in home.glob("nvidia/*/bin")]
    for folder in folders:
        if (folder / "cuobjdump").exists():
            for other in folders:
                if (other / "nvdisasm").exists():
                    # Behind the rest: the folder may have an nvcc too, which must not take the place of the first.
                    os.environ["PATH"] = f"{os.environ.get('PATH', '')}{os.pathsep}{other}"
                    return folder / "cuobjdump"
    fail(NO_CUOBJDUMP.format(python=sys.executable))
    return None


# ---------------------------------------------------------------------------------------------------------------------
# Resources


@dataclass
class Resources:
    registers: int = 0
    spills: int = 0  # bytes stored and loaded
    shared: int = 0
    parameter_base: int = 0  # in constant bank 0
    parameter_sizes: tuple = ()  # of each argument: (offset, bytes)
    constants: bytes = b""  # the compiler's own, in constant bank 2


def resources_of_log(log):
    """Registers, spills and shared memory by (architecture, kernel), from what ptxas -v says."""
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
    """The sections of an ELF file, by name."""
    at, size, count, names = (*struct.unpack_from("<Q", elf, 0x28), *struct.unpack_from("<HHH", elf, 0x3A))
    heads = [struct.unpack_from("<IIQQQQ", elf, at + size * k) for k in range(count)]
    strings = heads[names]

    def name(offset):
        start = strings[4] + offset
        return elf[start : elf.index(b"\0", start)].decode()

    return {name(h[0]): elf[h[4] : h[4] + h[5]] for h in heads if h[1] != 8}


def parameters_of(info):
    """Where a kernel finds its parameters: the base in the constant bank, and (offset, size) of each."""
    at, base, sizes = 0, None, {}
    while at + 4 <= len(info):
        form, attribute, size = struct.unpack_from("<BBH", info, at)
        at += 4
        if form != 4:  # the value stands in place of the size
            continue
        if attribute == 0x0A:  # PARAM_CBANK
            base = struct.unpack_from("<IHH", info, at)[1]
        elif attribute == 0x17:  # KPARAM_INFO
            _, ordinal, offset, packed = struct.unpack_from("<IHHI", info, at)
            sizes[ordinal] = (offset, packed >> 18)
        at += size
    return base, tuple(sizes[k] for k in sorted(sizes))


# ---------------------------------------------------------------------------------------------------------------------
# The recorder


class Operand(ctypes.Structure):
    _fields_ = [("address", ctypes.c_int64), ("ndim", ctypes.c_int64)] + [
        (name, ctypes.c_int64 * 8) for name in ("size", "stride")
    ]


class Call(ctypes.Structure):
    """As struct Case in recorder.cpp."""

    _fields_ = (
        [(x, ctypes.c_int64) for x in ("dtype", "outer", "channels", "inner", "multiprocessors", "workspace")]
        + [(x, ctypes.c_int64) for x in ("alpha", "alpha_dtype")]
        + [("alpha_value", ctypes.c_double)]
        + [(x, ctypes.c_int64) for x in ("mask", "formula")]
        + [("x", Operand), ("y", Operand), ("kind", ctypes.c_int64), ("grad", Operand), ("saved", Operand)]
        + [("grad_x", Operand)]
        + [(x, ctypes.c_int64) for x in ("grad_alpha", "grad_alpha_dtype")]
    )


class Recorded(ctypes.Structure):
    _fields_ = [
        ("grid", ctypes.c_uint64 * 3),
        ("block", ctypes.c_uint64 * 3),
        ("shared_bytes", ctypes.c_uint64),
        ("right_stream", ctypes.c_uint64),
        ("parameters", ctypes.POINTER(ctypes.c_void_p)),
    ]


ON_LAUNCH = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.POINTER(Recorded))


@dataclass
class Launch:
    kernel: str
    grid: int
    block: int
    shared_bytes: int  # dynamic
    arguments: list  # the bytes of each


class Project:
    """`architectures`: numbers such as 90."""

    def __init__(self, folder, architectures, jobs=2):
        self.csrc = Path(folder).resolve() / "csrc"
        self.architectures = architectures
        self.kernels, self.resources = {}, {}
        if not (self.csrc / "sources.txt").exists():
            fail(f"{folder} has no csrc/sources.txt")
        sources = [x for x in (self.csrc / "sources.txt").read_text().split() if x.endswith(".cu")]
        cuobjdump = find_cuobjdump()
        self.temporary = tempfile.TemporaryDirectory(prefix="sass-")
        build = Path(self.temporary.name)
        with ThreadPoolExecutor(jobs) as pool:
            objects = list(pool.map(lambda source: self.compile(build, source), sources))
            list(pool.map(lambda item: self.read(cuobjdump, *item), objects))
        self.link(build, [item[0] for item in objects])

    def compile(self, build, source):
        target = build / (source.replace("/", "_") + ".o")
        codes = [f"-gencode=arch=compute_{x},code=sm_{x}" for x in self.architectures]
        flags = ["-std=c++17", "-O3", "-DLEAKY_WITH_CUDA", "-Xcompiler=-fPIC", "-Xptxas=-v"]
        done = run(["nvcc", *flags, f"-I{self.csrc}", *codes, "-c", self.csrc / source, "-o", target])
        if done.returncode:
            fail(f"nvcc {source}:\n{done.stdout}{done.stderr}")
        return target, done.stdout + done.stderr

    def read(self, cuobjdump, target, log):
        """The code and the resources of an object's kernels."""
        resources = resources_of_log(log)
        for arch in self.architectures:
            listing = run([cuobjdump, "-sass", "-arch", f"sm_{arch}", target])
            if listing.returncode or ("Function :" not in listing.stdout and "entry function" in log):
                fail(f"{cuobjdump} -sass: {listing.stderr.strip() or 'no code in its output; is nvdisasm there?'}")
            kernels = emulator.parse(listing.stdout, arch)
            folder = target.parent / f"{target.stem}.{arch}"
            folder.mkdir()
            run([cuobjdump, "-xelf", "all", "-arch", f"sm_{arch}", target], cwd=folder)
            for cubin in folder.iterdir():
                for name, data in sections(cubin.read_bytes()).items():
                    if (kernel := name.removeprefix(".nv.info.")) in kernels:
                        found = resources[arch, kernel]
                        found.parameter_base, found.parameter_sizes = parameters_of(data)
                    elif (kernel := name.removeprefix(".nv.constant2.")) in kernels:
                        resources[arch, kernel].constants = data
            for name, kernel in kernels.items():
                self.kernels[arch, name] = kernel
                self.resources[arch, name] = resources[arch, name]

    def link(self, build, objects):
        """The host code and the recorder, as a library. nvcc compiles the recorder: it knows CUDA's headers."""
        library = build / "librecorder.so"
        flags = ["-std=c++17", "-O1", "-shared", "-cudart=none", "-Xcompiler=-fPIC", "-Xlinker=--no-undefined"]
        done = run(["nvcc", *flags, f"-I{self.csrc}", HERE / "recorder.cpp", *objects, "-o", library])
        if done.returncode:
            known = "static assertion failed: kernels.h" in done.stderr
            hint = "fill the new fields in recorder.cpp (and in Call, here), and add cases for them"
            hint = hint if known else "give recorder.cpp a stand-in for the missing function of CUDA's runtime"
            fail(f"recorder.cpp does not fit the project; {hint}:\n{done.stderr}")
        self.library = ctypes.CDLL(str(library))
        for name in ("record_forward", "record_backward"):
            getattr(self.library, name).restype = ctypes.c_char_p
        self.library.workspace_bytes.restype = ctypes.c_uint64
        self.callback = ON_LAUNCH(self.on_launch)
        self.library.set_on_launch(self.callback)

    def on_launch(self, name, recorded):
        launch = recorded.contents
        kernel = name.decode()
        if (self.architectures[0], kernel) not in self.resources:
            self.refused = f"a launch of {kernel or 'a kernel'} that was not found in the objects"
            return
        sizes = self.resources[self.architectures[0], kernel].parameter_sizes
        arguments = [ctypes.string_at(launch.parameters[k], size) for k, (_, size) in enumerate(sizes)]
        if list(launch.grid[1:]) + list(launch.block[1:]) != [1, 1, 1, 1]:
            self.refused = f"{kernel}: a launch in more than one dimension"
        self.wrong_stream = self.wrong_stream or not launch.right_stream
        self.launches.append(Launch(kernel, launch.grid[0], launch.block[0], launch.shared_bytes, arguments))

    def record(self, forward, call):
        """The launches of a call."""
        self.launches, self.refused, self.wrong_stream = [], None, False
        error = (self.library.record_forward if forward else self.library.record_backward)(ctypes.byref(call))
        if error:
            raise Fault(f"the host code threw: {error.decode()}")
        if self.refused:
            raise Unsupported(self.refused)
        if self.wrong_stream:
            raise Fault("a launch on another stream than the caller's")
        return self.launches

    def workspace_bytes(self, call):
        return self.library.workspace_bytes(ctypes.byref(call))

    def machine(self, arch, launch, memory, blocks=None, trace=False):
        """A machine that is about to run a launch."""
        kernel, resources = self.kernels[arch, launch.kernel], self.resources[arch, launch.kernel]
        end = max((offset + size for offset, size in resources.parameter_sizes), default=0)
        parameters = bytearray(end)
        for (offset, size), data in zip(resources.parameter_sizes, launch.arguments, strict=True):
            parameters[offset : offset + size] = data
        setup = LaunchSetup(launch.grid, launch.block, bytes(parameters))
        shared = resources.shared + launch.shared_bytes
        base, constants = resources.parameter_base, resources.constants
        return emulator.Machine(kernel, setup, memory, shared, base, constants, blocks=blocks, trace=trace)


@dataclass
class LaunchSetup:
    grid: int
    block: int
    parameters: bytes


def readable(names):
    """Names of kernels as a person writes them."""
    done = run([shutil.which("c++filt") or fail("c++filt is not on PATH (binutils)"), "--no-params", *names])
    short = re.compile(r"leaky_ext::cuda::|\(anonymous namespace\)::|^void |\(bool\)")
    terms = {"unsigned int": "u32", "unsigned long": "u64", "__nv_bfloat16": "bfloat16", "__half": "half", "> >": ">>"}
    clean = []
    for name in done.stdout.splitlines():
        name = short.sub("", name)
        for long, brief in terms.items():
            name = name.replace(long, brief)
        clean.append(name)
    return dict(zip(names, clean, strict=True))
