"""What a result was measured with."""

from __future__ import annotations

import datetime
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

import torch

import leaky_ext

ROOT = Path(__file__).resolve().parent.parent


def _first_match(path: str, pattern: str) -> str:
    try:
        match = re.search(pattern, Path(path).read_text(), re.MULTILINE)
    except OSError:
        return ""
    return match.group(1).strip() if match else ""


def available_bytes(device: str) -> int:
    """Memory that a case may use."""
    if device == "cuda":
        return torch.cuda.mem_get_info()[0]
    kilobytes = _first_match("/proc/meminfo", r"^MemAvailable:\s*(\d+) kB")
    return int(kilobytes) * 1024 if kilobytes else os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def _git(*arguments: str) -> str | None:
    try:
        run = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return run.stdout.strip()


def commit() -> str | None:
    """The commit of the sources, with "-dirty" where they were changed; None outside of a git checkout."""
    head = _git("rev-parse", "HEAD")
    sources = ("csrc", "leaky_ext", "benchmarks/*.py", "setup.py")
    return f"{head}-dirty" if head and _git("status", "--porcelain", "--", *sources) else head


def cpu_name() -> str:
    return _first_match("/proc/cpuinfo", r"^model name\s*:\s*(.*)$") or platform.processor() or platform.machine()


def describe(device: str) -> dict[str, Any]:
    """Facts on the device, as the schema wants them."""
    result: dict[str, Any] = {
        "type": device,
        "name": cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
    }
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        result["host"] = result["name"]
        result |= {
            "name": properties.name,
            "memory_gib": round(properties.total_memory / 2**30, 1),
            "capability": f"{properties.major}.{properties.minor}",
            "multiprocessors": properties.multi_processor_count,
            "l2_mib": round(properties.L2_cache_size / 2**20, 1),
            "cuda": torch.version.cuda,
        }
    else:
        result["capability"] = torch.backends.cpu.get_cpu_capability()
        result["huge_pages"] = _first_match("/sys/kernel/mm/transparent_hugepage/enabled", r"\[(\w+)\]")
        result["libc"] = " ".join(platform.libc_ver())
    return result


def software() -> dict[str, Any]:
    return {
        "leaky_ext": leaky_ext.__version__,
        "commit": commit(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "config": leaky_ext.show_config(),
    }


def slug(device: dict[str, Any]) -> str:
    """File name of a device's results."""
    name = re.sub(r"\((r|tm)\)", "", device["name"], flags=re.IGNORECASE)
    if device["type"] == "cpu":
        name = f"{name} {device['cores']} cores {device['capability']}"
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
