"""The cases that each suite measures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from .contenders import BOUNDED, BY_HAND, MAIN, NETWORK_CONTENDERS, PEER, SMALL
from .networks import BLOCKS, NETWORKS, TRAINED

K, M = 1_000, 1 << 20
SIZES = (100, 10 * K, M // 16, 100 * K, M // 4, M // 2, M, 2 * M, 4 * M, 16 * M)

FORWARD, BOTH, THEN_READ = "forward", "forward + backward", "forward, then F.relu"
TRAINING, INFERENCE = "training step", "inference"
GRAPHED = "training step in a CUDA graph"  # forward and backward are captured, so their host time is not measured
RECORDED = "forward, recorded"  # recorded by autograd; FORWARD runs without grad
WITH_GRADIENTS = (BOTH, RECORDED, TRAINING, GRAPHED)

# GLIBC_TUNABLES of the process that measures. "default": none, so each allocation above 32 MiB gets new pages. "kept":
# the process keeps freed memory (docs/performance.md).
MALLOC = {
    "default": "",
    "kept": "glibc.malloc.mmap_threshold=4294967296:glibc.malloc.trim_threshold=8589934592",
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """One comparison. Its contenders are measured in turns, in one process."""

    suite: str
    subject: str  # "operator", "module", or the name of a network or a block
    task: str
    contenders: tuple[str, ...]
    numel: int = 0  # if the subject is "operator" or "module"
    dtype: str = "float32"
    layout: str = "flat"  # of operators: flat has one slope, nchw and channels_last have one per channel
    compiled: bool = False
    threads: int = 2
    malloc: str = "default"
    device: str = "cpu"
    group: str = ""  # "by hand": formulas written by hand have their own process, because they change the heap

    @property
    def process(self) -> tuple[str, str, int, str, bool]:
        """Returns a key. One process measures all cases with the same key."""
        numel = 0 if self.device == "cuda" else self.numel  # the host's heap has no effect on CUDA
        return self.malloc, self.subject, numel, self.group, self.compiled

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.numel,) if self.layout == "flat" else (self.numel // (64 * 1024), 64, 32, 32)

    @property
    def name(self) -> str:
        return f"{self.subject}, {self.task}, {self.malloc}"

    @property
    def key(self) -> dict[str, str | int | bool]:
        """Returns the fields that identify the case in tables."""
        return {name: getattr(self, name) for name in KEY}


KEY = ("suite", "subject", "task", "numel", "dtype", "layout", "compiled", "threads", "malloc", "device", "group")


def size_name(numel: int) -> str:
    for scale, unit in ((M, "M"), (K, "K"), (M // 1024, "Ki")):
        if numel >= scale and numel % scale == 0:
            return f"{numel // scale}{unit}"
    return str(numel)


def operators(*, threads: int, quick: bool) -> Iterator[Case]:
    both = Case(suite="operators", subject="operator", task=BOTH, contenders=MAIN, threads=threads)
    if quick:
        yield replace(both, numel=M)
        return
    for numel in SIZES:
        case = replace(both, numel=numel)
        yield case
        yield replace(case, dtype="bfloat16")
        yield replace(case, task=FORWARD)
        yield replace(case, task=THEN_READ)
        if threads > 1:
            yield replace(case, threads=1)
        if numel >= M // 4:
            yield replace(case, malloc="kept")
            yield replace(case, malloc="kept", dtype="bfloat16")
        if numel in (10 * K, M, 16 * M):
            names = (*PEER, SMALL, *(name for names in BY_HAND.values() for name in names))
            yield replace(case, contenders=names, group="by hand")
    for numel in (M // 2, M, 4 * M, 16 * M):
        per_channel = replace(both, numel=numel, contenders=("learnable", "PReLU", "oneDNN"), layout="nchw")
        yield per_channel
        yield replace(per_channel, task=FORWARD, contenders=("learnable", "PReLU"))
        yield replace(per_channel, layout="channels_last", contenders=("learnable", "PReLU"))


def calls(*, threads: int, quick: bool) -> Iterator[Case]:
    """Yields operators on small tensors, which measure call overhead."""
    for task in (BOTH,) if quick else (BOTH, FORWARD):
        yield Case(
            suite="calls", subject="operator", task=task, numel=100, threads=threads,
            contenders=(*MAIN, SMALL, "where", "detach", "NSReLU"),
        )  # fmt: skip


def host(*, threads: int, quick: bool) -> Iterator[Case]:
    """Yields calls of modules on small tensors, on one thread, which measure host time."""
    for task in (BOTH, RECORDED, FORWARD):
        names = tuple(name for name in MAIN if name != "fixed")  # a function; `calls` measures it
        names += (*BOUNDED, *BOUNDED.values())
        yield Case(suite="host", subject="module", task=task, contenders=names, numel=100, threads=1)


def compiled(*, threads: int, quick: bool) -> Iterator[Case]:
    case = Case(suite="compiled", subject="operator", task=BOTH, contenders=MAIN, compiled=True, threads=threads)
    by_hand = ("where", "where, fixed", "where, straight-through")
    if quick:
        yield replace(case, numel=M, contenders=("learnable", "PReLU"))
        return
    for numel in (10 * K, M, 16 * M):
        yield replace(case, numel=numel, contenders=MAIN + (by_hand if numel == M else ()))
        yield replace(case, numel=numel, dtype="bfloat16")
    for block in BLOCKS:
        yield replace(case, subject=block, contenders=(*MAIN, "where"))


def networks(*, threads: int, quick: bool) -> Iterator[Case]:
    """Yields eager networks, without those whose package is not installed."""
    few = ("facenet RNet", "Real-ESRGAN compact, 64 px", "MLP")
    for name, network in NETWORKS.items():
        if not network.available or (quick and name not in few):
            continue
        case = Case(
            suite="networks", subject=name, task=TRAINING, contenders=(*NETWORK_CONTENDERS, "none"), threads=threads
        )
        if quick:
            yield replace(case, contenders=NETWORK_CONTENDERS)
            continue
        yield case
        if network.large:
            continue
        yield replace(case, task=INFERENCE, contenders=(*MAIN, "none"))
        yield replace(case, malloc="kept")


def networks_compiled(*, threads: int, quick: bool) -> Iterator[Case]:
    """Yields training steps only, because compiling takes longer than measuring."""
    for case in networks(threads=threads, quick=quick):
        wanted = case.subject == "MLP" if quick else not NETWORKS[case.subject].large
        if wanted and case.task == TRAINING and case.malloc == "default":
            contenders = ("learnable", "PReLU") if quick else NETWORK_CONTENDERS
            yield replace(case, suite="networks-compiled", compiled=True, contenders=contenders)


def trained(*, threads: int, quick: bool) -> Iterator[Case]:
    """Yields training steps with autocast or channels_last, as people train, and in contiguous float32."""
    for name, network in TRAINED.items():
        if not network.available or (quick and not name.startswith(("MLP", "residual network, batch"))):
            continue
        case = Case(suite="trained", subject=name, task=TRAINING, contenders=(*MAIN, SMALL, "none"), threads=threads)
        yield case
        if network.fills_gpu:
            yield replace(case, task=GRAPHED, contenders=(*MAIN, "none"))


def trained_compiled(*, threads: int, quick: bool) -> Iterator[Case]:
    for case in trained(threads=threads, quick=quick):
        if case.task == TRAINING:
            yield replace(case, suite="trained-compiled", compiled=True, contenders=MAIN)


SUITES = {
    "calls": calls,
    "host": host,
    "operators": operators,
    "networks": networks,
    "trained": trained,
    "compiled": compiled,
    "networks-compiled": networks_compiled,
    "trained-compiled": trained_compiled,
}
# Seconds of timing per case and process.
SECONDS = {"calls": 3.0, "host": 2.0, "operators": 0.3, "networks": 3.0, "trained": 2.0, "compiled": 0.5}
SECONDS |= {"networks-compiled": 2.0, "trained-compiled": 2.0}
# Processes per case. The heap differs from process to process, and changes the time of large allocations.
PROCESSES = dict.fromkeys(SUITES, 3) | {"calls": 5, "trained": 2}


def select(suite: str, *, device: str = "cpu", threads: int = 2, quick: bool = False) -> list[Case]:
    cases = list(SUITES[suite](threads=threads, quick=quick))
    cases = [case for case in cases if case.subject not in TRAINED or TRAINED[case.subject].runs_on(device)]
    if device == "cuda":
        cases = [replace(case, device=device) for case in cases if on_cuda(case, threads)]
        # With fewer elements, most of the time is host time.
        cases += [replace(case, numel=64 * M) for case in cases if case.numel == 16 * M]
    return cases


def on_cuda(case: Case, threads: int) -> bool:
    """Returns whether to measure a case on CUDA. glibc and host threads have no effect there; oneDNN is for CPUs."""
    default = case.malloc == "default" and (case.threads == threads or case.suite == "host")
    return default and "oneDNN" not in case.contenders
