"""The group of commands, and how every one of them ends: with one clear message and the right exit code."""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from types import FrameType

import click

from onnxfix import __version__
from onnxfix.cli.failure import Failure, failure_of
from onnxfix.cli.streams import guarded_streams
from onnxfix.errors import ExitCode, ModelError, OnnxfixError, OutputError

TRACEBACK = "ONNXFIX_TRACEBACK"
"""The environment variable that lets errors show where they came from."""
_ENDING = tuple(signal.Signals[name] for name in ("SIGTERM", "SIGHUP") if name in signal.Signals.__members__)


_COMMANDS = ("conventions", "convert", "inspect", "migrate", "record", "report", "verify")
"""Each in a module of its name."""


class _Commands(click.Group):
    """The commands, each of which is imported when somebody asks for it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command = getattr(importlib.import_module(f"onnxfix.cli.{cmd_name}"), cmd_name)
        assert isinstance(command, click.Command)
        return command


@click.group(cls=_Commands, context_settings={"max_content_width": 110, "help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="%(prog)s %(version)s")
def commands() -> None:
    """Rewrite the cache interface of exported ONNX models from one convention into another, and prove the result."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit code, whatever happens.

    Args:
        arguments: The words after the program's name; those of the process if None.
    """
    words = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    with guarded_streams():
        return _ended(words)


def _ended(words: Sequence[str]) -> int:
    """Runs a command, and says what went wrong."""
    try:
        with _terminable():
            return int(commands.main(words, prog_name="onnxfix", standalone_mode=False) or ExitCode.OK)
    except (Exception, KeyboardInterrupt) as error:
        failure = _understood(error)
        _say(failure, as_json="--json" in words)
        return failure.exit_code


def _understood(error: BaseException) -> Failure:
    if isinstance(error, OnnxfixError):
        return failure_of(error)
    if isinstance(error, click.ClickException):
        context = error.ctx if isinstance(error, click.UsageError) else None
        hint = f"`{context.command_path if context else 'onnxfix'} --help` says how it is meant"
        return Failure("UsageError", error.format_message(), ExitCode.USAGE, hint=hint)
    if isinstance(error, (KeyboardInterrupt, click.Abort)):
        return Failure("Interrupted", "interrupted: nothing was written", ExitCode.INTERRUPTED)
    if isinstance(error, MemoryError):
        return failure_of(ModelError("there is not enough memory"))
    kind = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    advice = "please report it, with the command and, if you may share it, the model"
    hint = f"{advice}; {TRACEBACK}=1 shows where it is"
    return Failure("Bug", f"this is a bug in onnxfix: {kind}", ExitCode.BUG, hint=hint)


def _say(failure: Failure, *, as_json: bool) -> None:
    """Tells people and, if they ask, programs; where the output itself is what fails, nothing more can be said."""
    from onnxfix.cli.console import print_json, show_failure

    if os.environ.get(TRACEBACK) and failure.exit_code is not ExitCode.INTERRUPTED:
        import traceback

        with contextlib.suppress(OutputError):
            traceback.print_exc()
    with contextlib.suppress(OutputError):
        show_failure(failure)
    if as_json:
        with contextlib.suppress(OutputError):
            print_json(failure.to_json())


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Lets a request to end, or the end of the terminal, end the block like an exception: what is half written goes."""
    if threading.current_thread() is not threading.main_thread():  # signals belong to the main thread
        yield
        return
    known = {number: signal.getsignal(number) for number in _ENDING}
    # What is ignored, as under `nohup`, stays so.
    heard = {number: action for number, action in known.items() if action not in (signal.SIG_IGN, None)}
    try:
        for number in heard:
            signal.signal(number, _terminate)
        yield
    finally:
        for number, action in heard.items():
            signal.signal(number, action)


def _terminate(signal_number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + signal_number)
