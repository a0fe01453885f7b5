"""What the numbers depend on: processor, versions, and how busy the machine was; nothing that names it."""

from __future__ import annotations

import compileall
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import memory

import onnxfix

PACKAGES = ("onnxfix", "onnx", "onnx-graphsurgeon", "onnxruntime", "onnxruntime-gpu", "onnxsim", "onnxslim", "numpy")


def describe() -> dict[str, Any]:
    """Describes machine and versions; `load` is how many processes wanted to run before anything was measured."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "cpu": cpu_model(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "free_memory_gb": round((memory.available_bytes() or 0) / 1e9),
        "system": f"{platform.system()} {platform.machine()}",
        "load": load(),
        "versions": versions,
    }


def compile_package() -> None:
    """Compiles onnxfix, as pip does with what it installs; Python may have been told to write no such files."""
    compileall.compile_dir(Path(onnxfix.__file__).parent, quiet=1)


def load() -> float:
    """Gives how many processes wanted to run in the last minute, this one's among them."""
    return round(os.getloadavg()[0], 1)


def cpu_model() -> str:
    """Gives the name of the processor."""
    path = Path("/proc/cpuinfo")
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
