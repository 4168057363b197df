"""What this machine is, in facts that may be published: no host name, no user, no path."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import psutil
import torch

# Instruction sets that decide how fast a small network runs on a CPU.
_ISA = (
    "avx2", "fma", "f16c", "avx512f", "avx512_bf16", "avx512_vnni", "avx_vnni",
    "amx_bf16", "amx_int8", "asimd", "asimddp", "i8mm", "bf16", "sve",
)  # fmt: skip
# What a table says of them: the first that is there.
_ISA_WORDS = {
    "amx_int8": "AMX", "avx512_vnni": "AVX-512 VNNI", "avx_vnni": "AVX VNNI",
    "avx512f": "AVX-512", "avx2": "AVX2", "i8mm": "int8 matrix products", "asimddp": "dot products",
}  # fmt: skip
# These multiply four pairs of bytes and add the products in 32 bits.
_FOUR_BYTES = ("avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm")
_VERSIONED = (
    "numpy",
    "onnx",
    "onnxruntime",
    "openvino",
    "torchao",
    "torch-pruning",
    "torchmetrics",
)


def machine() -> dict[str, Any]:
    """Facts about this machine: cpu, cores, memory, instruction sets, torch, system.

    Keys: `cpu` (name), `architecture`, `cores` (logical), `cores_physical`, `cores_usable`
    (by this process, when it is pinned to some), `cpu_limit` (cores' worth of time that a container
    grants; None without a limit), `memory_gb` (a container's limit counted), `isa` (instruction
    sets), `torch_isa` (the one that PyTorch chose), `accelerator` (a GPU's name or None), `system`,
    `python`, `torch`, `numpy`.
    """
    return dict(_facts())


def describe_machine() -> str:
    """One line for a table: CPU name, instruction set, cores, memory, GPU if any, system.

    Two processors of one name may differ in their instructions, which decide what int8 brings.
    """
    facts = _facts()
    words = next((word for flag, word in _ISA_WORDS.items() if flag in facts["isa"]), "")
    cores, usable = facts["cores"], facts["cores_usable"]
    pinned = f" ({usable} usable)" if usable < cores else ""
    parts = [
        f"{facts['cpu']} ({words})" if words else facts["cpu"],
        f"{cores} core{'s' if cores != 1 else ''}{pinned}",
        f"{facts['memory_gb']:.0f} GB",
        facts["system"],
    ]
    if facts["accelerator"]:
        parts.insert(3, facts["accelerator"])
    return ", ".join(parts)


def adds_four_byte_products() -> bool:
    """Whether this processor adds four products of bytes in 32 bits (VNNI, AMX, ARM's dot product).

    Without it, integer kernels add two products in 16 bits first, twice as slowly.
    """
    return any(flag in _FOUR_BYTES for flag in _facts()["isa"])


def versions() -> dict[str, str]:
    """Versions of Python, PyTorch and the measuring libraries that are loaded in this process."""
    found = {"python": platform.python_version(), "torch": str(torch.__version__)}
    for package in _VERSIONED:
        if package.replace("-", "_") in sys.modules:
            found[package] = importlib.metadata.version(package)
    return found


def usable_cores() -> int:
    """Logical cores this process may run on (its affinity mask where the system has one)."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return max(1, os.cpu_count() or 1)


def cpu_limit() -> float | None:
    """Cores' worth of CPU time that a Linux container (Docker, Binder) grants, or None."""
    try:  # cgroup version 2
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()[:2]
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        pass
    try:  # version 1
        folder = Path("/sys/fs/cgroup/cpu")
        quota = int((folder / "cpu.cfs_quota_us").read_text())
        period = int((folder / "cpu.cfs_period_us").read_text())
        return None if quota <= 0 else quota / period
    except (OSError, ValueError):
        return None


@lru_cache(maxsize=1)
def _facts() -> dict[str, Any]:
    name, flags = _cpu_name_and_flags()
    return {
        "cpu": name,
        "architecture": platform.machine(),
        "cores": psutil.cpu_count() or 1,
        "cores_usable": usable_cores(),
        "cores_physical": _physical_cores(),
        "cpu_limit": cpu_limit(),
        "memory_gb": round(_memory_bytes() / 2**30, 1),
        "isa": [flag for flag in _ISA if flag in flags],
        "torch_isa": torch.backends.cpu.get_cpu_capability(),
        "accelerator": _accelerator(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": importlib.metadata.version("numpy"),
    }


def _cpu_name_and_flags() -> tuple[str, set[str]]:
    name, flags = "", set()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name" and not name:
                name = value.strip()
            elif key.strip() in ("flags", "Features") and not flags:
                flags = set(value.split())
    elif sys.platform == "darwin":
        name = _sysctl("machdep.cpu.brand_string")
        words = _sysctl("machdep.cpu.features") + " " + _sysctl("machdep.cpu.leaf7_features")
        flags = {word.lower() for word in words.split()}
        if platform.machine() == "arm64":
            flags.add("asimd")
    name = name or platform.processor() or platform.machine() or "unknown CPU"
    return " ".join(name.split()), flags


def _sysctl(key: str) -> str:
    try:
        done = subprocess.run(
            ["sysctl", "-n", key], capture_output=True, text=True, timeout=5, check=False
        )
    except OSError:
        return ""
    return done.stdout.strip()


def _physical_cores() -> int:
    """The machine's physical cores; its logical ones where the system does not say."""
    return psutil.cpu_count(logical=False) or psutil.cpu_count() or 1


def _memory_bytes() -> int:
    total = psutil.virtual_memory().total
    with suppress(OSError, ValueError):  # no container, or the word "max"
        total = min(total, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return total


def _accelerator() -> str | None:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    if torch.backends.mps.is_available():
        return "Apple GPU (MPS)"
    return None
