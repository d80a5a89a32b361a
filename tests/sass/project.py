"""The compiled project: the code and resources of each kernel, and its host code as a library that records launches."""

import ctypes
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import program
from cubin import parameters_of, resources_of_log, sections
from emulator import Emulator
from errors import Fault, Unsupported
from tools import fail, find_cuobjdump, run

HERE = Path(__file__).resolve().parent
# In the order of the arrays in recorder.cpp:
DTYPES = ("float64", "float32", "float16", "bfloat16")
KINDS = ("input", "output", "output+mask", "mask")


class Operand(ctypes.Structure):
    _fields_ = [("address", ctypes.c_int64), ("ndim", ctypes.c_int64)] + [
        (name, ctypes.c_int64 * 8) for name in ("size", "stride")
    ]


class Call(ctypes.Structure):
    """The arguments of one call of cuda::forward or cuda::backward. The same struct is in recorder.cpp."""

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
    """A launch, as recorder.cpp passes it."""

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
    shared_bytes: int  # of dynamic shared memory
    arguments: list  # bytes objects


class Project:
    """The project in `folder`, compiled for `architectures`, such as 90. `jobs` sources are compiled at once."""

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
        """Reads the code and the resources of an object's kernels."""
        resources = resources_of_log(log)
        for arch in self.architectures:
            listing = run([cuobjdump, "-sass", "-arch", f"sm_{arch}", target])
            if listing.returncode or ("Function :" not in listing.stdout and "entry function" in log):
                fail(f"{cuobjdump} -sass: {listing.stderr.strip() or 'no code in its output; is nvdisasm installed?'}")
            kernels = program.parse(listing.stdout, arch)
            folder = target.parent / f"{target.stem}.{arch}"
            folder.mkdir()
            run([cuobjdump, "-xelf", "all", "-arch", f"sm_{arch}", target], cwd=folder)
            for cubin in folder.iterdir():
                for name, data in sections(cubin.read_bytes()).items():
                    if (kernel := name.removeprefix(".nv.info.")) in kernels:
                        found = resources[arch, kernel]
                        found.parameter_base, found.parameter_layout = parameters_of(data)
                    elif (kernel := name.removeprefix(".nv.constant2.")) in kernels:
                        resources[arch, kernel].constants = data
            for name, kernel in kernels.items():
                self.kernels[arch, name] = kernel
                self.resources[arch, name] = resources[arch, name]

    def link(self, build, objects):
        """Links the host code and the recorder into a library. nvcc finds CUDA's headers for the recorder."""
        library = build / "librecorder.so"
        flags = ["-std=c++17", "-O1", "-shared", "-cudart=none", "-Xcompiler=-fPIC", "-Xlinker=--no-undefined"]
        done = run(["nvcc", *flags, f"-I{self.csrc}", HERE / "recorder.cpp", *objects, "-o", library])
        if done.returncode:
            hint = "if a function of the CUDA runtime is missing, add it to recorder.cpp"
            if "static assertion failed: kernels.h" in done.stderr:
                hint = "set the new fields in recorder.cpp, and in Call in project.py, and add cases for them"
            fail(f"recorder.cpp does not match the project; {hint}:\n{done.stderr}")
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
            self.unsupported = f"launch of {kernel or 'a kernel'}, which is not in the object files"
            return
        layout = self.resources[self.architectures[0], kernel].parameter_layout
        arguments = [ctypes.string_at(launch.parameters[k], size) for k, (_, size) in enumerate(layout)]
        if list(launch.grid[1:]) + list(launch.block[1:]) != [1, 1, 1, 1]:
            self.unsupported = f"{kernel}: launch in more than one dimension"
        self.wrong_stream = self.wrong_stream or not launch.right_stream
        self.launches.append(Launch(kernel, launch.grid[0], launch.block[0], launch.shared_bytes, arguments))

    def record(self, forward, call):
        """Returns the launches of a call of cuda::forward, or else of cuda::backward."""
        self.launches, self.unsupported, self.wrong_stream = [], None, False
        error = (self.library.record_forward if forward else self.library.record_backward)(ctypes.byref(call))
        if error:
            raise Fault(f"the host code threw: {error.decode()}")
        if self.unsupported:
            raise Unsupported(self.unsupported)
        if self.wrong_stream:
            raise Fault("launch on a stream other than the caller's")
        return self.launches

    def workspace_bytes(self, call):
        return self.library.workspace_bytes(ctypes.byref(call))

    def emulator(self, arch, launch, memory, blocks, trace=False):
        """Returns an emulator that is ready to run these blocks of a launch."""
        kernel, resources = self.kernels[arch, launch.kernel], self.resources[arch, launch.kernel]
        return Emulator(kernel, resources, launch, memory, blocks, trace)
