"""The group of commands, and how every one of them ends: with one clear message and the right exit code."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from types import FrameType

import click

from onnxfix import __version__
from onnxfix.cli.conventions import conventions
from onnxfix.cli.convert import convert
from onnxfix.cli.inspect import inspect
from onnxfix.errors import ExitCode, ModelError, OnnxfixError

TRACEBACK = "ONNXFIX_TRACEBACK"
"""The environment variable that lets errors show where they came from."""


@click.group(context_settings={"max_content_width": 110, "help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="%(prog)s %(version)s")
def commands() -> None:
    """Rewrite the cache interface of exported ONNX models from one convention into another, and prove the result."""


for _command in (convert, inspect, conventions):
    commands.add_command(_command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit code, whatever happens.

    Args:
        arguments: The words after the program's name; those of the process if None.
    """
    words = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        with _terminable():
            return int(commands.main(words, prog_name="onnxfix", standalone_mode=False) or ExitCode.OK)
    except click.ClickException as error:
        return _misused(error)
    except OnnxfixError as error:
        return _failed(error, words)
    except (KeyboardInterrupt, click.Abort):
        return _say("interrupted: nothing was written", ExitCode.INTERRUPTED)
    except BrokenPipeError:
        # Whoever read the output has enough of it. What is still buffered goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.OK
    except MemoryError:
        return _failed(ModelError("there is not enough memory"), words)
    except Exception as error:
        return _bug(error)


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Lets a request to terminate end the block like an exception: what is half written is removed on the way."""
    try:
        known = signal.signal(signal.SIGTERM, _terminate)
    except ValueError:  # signals belong to the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, known)


def _terminate(signal_number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + signal_number)


def _failed(error: OnnxfixError, words: Sequence[str]) -> int:
    from onnxfix.cli.console import error_to_json, print_json, show_error

    _trace()
    show_error(error)
    if "--json" in words:
        print_json(error_to_json(error))
    return error.exit_code


def _misused(error: click.ClickException) -> int:
    context = error.ctx if isinstance(error, click.UsageError) else None
    where = context.command_path if context else "onnxfix"
    return _say(f"error: {error.format_message()}\n  `{where} --help` says how it is meant", ExitCode.USAGE)


def _bug(error: Exception) -> int:
    _trace()
    kind = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    advice = "please report it, with the command and, if you may share it, the model"
    return _say(f"error: this is a bug in onnxfix: {kind}\n  {advice}; {TRACEBACK}=1 shows where it is", ExitCode.BUG)


def _trace() -> None:
    if os.environ.get(TRACEBACK):
        import traceback

        traceback.print_exc()


def _say(text: str, code: ExitCode) -> ExitCode:
    click.echo(text, err=True)
    return code
