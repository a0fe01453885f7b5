"""A Dask cluster as people start it: a scheduler and workers, each a program of its own, on loopback."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import psutil

_SECONDS = 30.0


def wait_until(is_so: Callable[[], object]) -> None:
    """Waits until something is so."""
    latest = time.monotonic() + _SECONDS
    while not is_so():
        assert time.monotonic() < latest, "it did not come to that"
        time.sleep(0.02)


class Programs:
    """A scheduler and its workers; as a context manager it ends them.

    Attributes:
        address: The scheduler's.
        scheduler: Its process.
        workers: Those of the workers; with a nanny, that is the nanny's.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.workers: list[psutil.Popen] = []
        told = folder / "scheduler.json"
        self.scheduler = self._start(
            "scheduler", "--port", "0", "--dashboard-address", "127.0.0.1:0", "--scheduler-file", str(told)
        )
        wait_until(lambda: told.exists() and told.read_text().endswith("}"))
        self.address = str(json.loads(told.read_text())["address"])

    def __enter__(self) -> Programs:
        return self

    def __exit__(self, *_: object) -> None:
        for program in (*self.workers, self.scheduler):
            kill(program)

    def add(self, *options: str, fault: str = "") -> psutil.Popen:
        """Starts a worker with one thread."""
        words = [
            "worker",
            self.address,
            "--nthreads",
            "1",
            "--dashboard-address",
            "127.0.0.1:0",
            "--memory-limit",
            "0",
            *options,
        ]
        self.workers.append(self._start(*words, fault=fault))
        return self.workers[-1]

    def _start(self, *words: str, fault: str = "") -> psutil.Popen:
        environment = {**os.environ, "ONNXFIX_TEST_FAULT": fault, "DASK_TEMPORARY_DIRECTORY": str(self.folder)}
        return psutil.Popen(
            [sys.executable, "-m", "dask", *words, "--host", "127.0.0.1"], env=environment, cwd=self.folder,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip


@contextlib.contextmanager
def running(words: Iterable[object], folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Runs a program, and ends it if nobody has waited for it."""
    words = [str(word) for word in words]
    with subprocess.Popen(words, cwd=folder, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def kill(program: psutil.Popen) -> None:
    """Kills a process and all that it has started, at once."""
    with contextlib.suppress(psutil.NoSuchProcess):
        below = program.children(recursive=True)
        for process in (program, *below):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
    program.wait()


def models_in_work(program: psutil.Process) -> list[psutil.Process]:
    """Returns the processes below another one that work on models."""
    return list(_models_in_work(program))


def _models_in_work(program: psutil.Process) -> Iterator[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        for process in program.children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if "onnxfix.zoo.worker" in " ".join(process.cmdline()):
                    yield process
