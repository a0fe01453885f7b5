"""Faults on purpose, for the tests of this package: nothing happens unless `ONNXFIX_TEST_FAULT` is set.

`ONNXFIX_TEST_FAULT="crash:bad/*.onnx;hang:**/slow.onnx"` lets the process that works on a model that a glob names crash
(`crash`), be killed (`kill`), sleep (`hang`), never come back (`spin`), take memory without end (`memory`), find the
disk full (`full`), fail in a way that nobody foresaw (`bug`), or print a word and go on (`say`).
"""

from __future__ import annotations

import errno
import os
import signal
import time

VARIABLE = "ONNXFIX_TEST_FAULT"
_STEP, _MOST = 1 << 25, 96


def provoke(path: str) -> None:
    """Does what the environment asks for with a model."""
    from onnxfix.zoo.manifest import is_match

    for entry in filter(None, os.environ.get(VARIABLE, "").split(";")):
        kind, _, pattern = entry.partition(":")
        if is_match(pattern, path):
            _provoke(kind)


def _provoke(kind: str) -> None:
    match kind:
        case "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "hang":
            time.sleep(10_000)
        case "spin":
            while True:
                pass
        case "memory":  # an end all the same, for machines on which nobody watches
            taken = []
            for _ in range(_MOST):
                taken.append(bytearray(os.urandom(1 << 12) * (_STEP >> 12)))
                time.sleep(0.01)
            raise MemoryError
        case "full":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        case "say":
            os.write(2, b"said")
        case "bug":
            raise RuntimeError("a bug on purpose")
        case _:
            raise ValueError(f"{VARIABLE}: `{kind}` is no fault")
