"""The command line as a program of its own, which is over when its command is."""

from __future__ import annotations

import atexit
import gc
import os
import sys
import threading
from typing import NoReturn

from onnxfix.cli.main import main

_SELDOM = (200_000, 30, 30)
"""When Python looks for cycles. By default it does again and again while libraries are loaded, and walks over all that
they leave: a tenth of the time of a conversion."""


def run() -> NoReturn:
    """Runs the command line and ends the process.

    Python takes everything apart before it ends, onnx's operators and the simplifier's among them: a tenth of a
    second or two, in which nothing is done that anybody needs. The system takes all of it back at once.
    """
    gc.set_threshold(*_SELDOM)
    code = main()
    if threading.active_count() > 1:  # some library goes on in the background: it ends in its own way
        sys.exit(code)
    atexit._run_exitfuncs()  # temporary folders go
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    os._exit(code)
