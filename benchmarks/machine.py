"""Describes the machine and the software of a measurement."""

from __future__ import annotations

import datetime
import functools
import os
import platform
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import torch

import leaky_ext

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A machine. Its results are in one file."""

    name: str  # of the GPU, or of the CPU if the CPU is measured
    device: str
    cores: int
    memory_gib: float
    cpu: str  # with family and model: virtual machines hide the product's name
    caches: str
    system: str

    @property
    def slug(self) -> str:
        text = self.name if self.device == "cuda" else f"{self.cpu} {self.cores} cores"
        return re.sub(r"[^a-z0-9]+", "-", re.sub(r"\((r|tm)\)", "", text.lower())).strip("-")

    @property
    def title(self) -> str:
        return f"{self.cpu}, {self.cores} cores" if self.device == "cpu" else self.name


@dataclass(frozen=True, kw_only=True)
class Run:
    """The software and the time of a measurement."""

    version: str
    commit: str
    date: str
    torch: str
    python: str
    quick: bool
    seconds: float
    config: str  # leaky_ext.show_config()

    def __str__(self) -> str:
        quick = ", quick" if self.quick else ""
        return f"leaky_ext {self.version} ({self.commit}), {self.torch}, Python {self.python}, {self.date}{quick}"


@functools.cache
def this_machine(device: str) -> Machine:
    import cpuinfo
    from torch.utils import collect_env

    info, environment = cpuinfo.get_cpu_info(), collect_env.get_env_info()
    brand = info.get("brand_raw", platform.machine())
    caches = re.findall(r"^(L[23]) cache:\s+([\d.]+ \w+)", environment.cpu_info or "", re.MULTILINE)
    gpu = torch.cuda.get_device_properties(0) if device == "cuda" else None
    memory = gpu.total_memory if gpu else os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return Machine(
        name=gpu.name if gpu else brand,
        device=device,
        cores=len(os.sched_getaffinity(0)),
        memory_gib=round(memory / 2**30, 1),
        cpu=f"{brand}, family {info.get('family')} model {info.get('model')}",
        caches=", ".join(" ".join(cache) for cache in caches),
        system=f"{environment.os}, {environment.libc_version}"
        + (f", driver {environment.nvidia_driver_version}, CUDA {torch.version.cuda}" if gpu else ""),
    )


def this_run(*, quick: bool, seconds: float) -> Run:
    return Run(
        version=leaky_ext.__version__,
        commit=commit(),
        date=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        torch=f"torch {torch.__version__}",
        python=platform.python_version(),
        quick=quick,
        seconds=round(seconds, 1),
        config=leaky_ext.show_config(),
    )


@functools.cache
def commit() -> str:
    """Returns the commit of the sources, with "-dirty" if they were changed, or "unknown" outside a checkout."""

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        head, changed = git("rev-parse", "--short=10", "HEAD"), git("status", "--porcelain", "--", "csrc", "leaky_ext")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head + ("-dirty" if changed else "")
