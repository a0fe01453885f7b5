"""`onnxfix record MODEL TRACE.npz`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from onnxfix.cli.options import from_option, json_option, read_pairs, read_sizes, size_option
from onnxfix.errors import ExitCode

if TYPE_CHECKING:
    from rich.console import Console

    from onnxfix.report import Json
    from onnxfix.verify.trace import Trace

_EPILOG = """\b
Examples:
  onnxfix record old.onnx run.npz
  onnxfix record old.onnx run.npz --ticks 60 --size batch=1
  onnxfix verify new.onnx --against run.npz

\b
Exit codes: 0 recorded; 2 usage; 3 a file cannot be read or written, or the
model's convention is not known; 4 the model cannot be driven, or the run would
prove nothing; 70 a bug in onnxfix; 130 interrupted. In all but 0 nothing new is
visible at TRACE.npz.
"""
_FILE = click.Path(path_type=Path)


@click.command(epilog=_EPILOG)
@click.argument("model", type=_FILE)
@click.argument("trace", type=_FILE, metavar="TRACE.npz")
@from_option
@size_option
@click.option(
    "--ticks", type=click.IntRange(min=0), help="How many streaming calls; else as many as the longest cache remembers."
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the random inputs.")
@click.option("--batch", type=click.IntRange(min=1), help="How many streams at once.")
@click.option(
    "--feed", "feeds", multiple=True, metavar="PORT=KIND[:ARGS]",
    help="What to feed to an input: zeros, ones, constant:VALUE, noise[:SCALE], tokens:COUNT, range[:START], "
    "step:START,BY, tone[:LEVEL[,HERTZ]].",
)  # fmt: skip
@click.option("--inputs", type=_FILE, metavar="FILE", help="Inputs, recorded: an npz file or a folder.")
@click.option("--quiet", "-q", is_flag=True, help="Print errors only.")
@json_option
def record(
    model: Path, trace: Path, from_: tuple[str, ...], sizes: tuple[str, ...], ticks: int | None, seed: int,
    batch: int | None, feeds: tuple[str, ...], inputs: Path | None, quiet: bool, as_json: bool,
) -> int:  # fmt: skip
    """Drive MODEL over a stream and store what it was fed and put out, in place of MODEL itself.

    Later, `onnxfix verify CONVERTED --against TRACE.npz` needs no MODEL any more.
    """
    from onnxfix.cli.console import people, print_json
    from onnxfix.cli.progress import StageProgress
    from onnxfix.proof import record as drive
    from onnxfix.verify.feed import Feed
    from onnxfix.verify.options import VerifyOptions

    rules = read_pairs("--feed", feeds)
    for port, rule in rules.items():
        Feed.parse(port, rule)  # a slip of the pen shows before any work is done
    with StageProgress(quiet) as progress:
        options = VerifyOptions(
            ticks, seed, inputs, rules, read_sizes("--size", sizes), batch=batch,
            progress=lambda done, total: progress("record", done, total),
        )  # fmt: skip
        recorded = drive(model, trace, from_=from_ or None, options=options)
    with recorded:
        if not quiet:
            _show(people(), recorded)
        if as_json:
            print_json(_to_json(recorded))
    return ExitCode.OK


def _show(console: Console, trace: Trace) -> None:
    from rich.text import Text

    from onnxfix.cli.console import count_text
    from onnxfix.report import bytes_text

    header = trace.header
    headline = Text().append("recorded", "bold green").append(f"  {header.model}", "bold")
    console.print(headline.append(f" ({header.convention})", "dim"), soft_wrap=True)
    starts = " and ".join(f"{count_text(run.ticks, 'tick')} from {run.start} caches" for run in header.runs)
    fed = ", ".join(f"{port}: {how}" for port, how in header.fed.items())
    rows = [("driven", f"{starts}, seed {header.seed}"), ("fed", fed)]
    if header.evidence is not None:
        hidden = header.evidence.not_observable
        parts = len(header.evidence.observable) + len(hidden)
        rows.append(("evidence", f"{len(header.evidence.observable)} of {parts} parts of the caches, disturbed alone, "
                     "showed in an output" + (f"; not observable: {', '.join(hidden)}" if hidden else "")))  # fmt: skip
    rows += [("note", note) for note in header.notes]
    for name, text in rows:
        console.print(Text().append(f"{name:<9} ", "cyan").append(text), soft_wrap=True)
    size = bytes_text(trace.path.stat().st_size)
    console.print(Text("wrote ").append(str(trace.path), "bold").append(f" ({size})", "dim"), soft_wrap=True)


def _to_json(trace: Trace) -> dict[str, Json]:
    header = trace.header
    shown, hidden = (header.evidence.observable, header.evidence.not_observable) if header.evidence else ((), ())
    return {
        "outcome": "recorded",
        "trace": str(trace.path),
        "model": {"name": header.model, "sha256": header.sha256},
        "convention": str(header.convention),
        "seed": header.seed,
        "runs": [{"start": run.start, "ticks": run.ticks} for run in header.runs],
        "fed": dict(header.fed),
        "observable": list(shown),
        "not_observable": list(hidden),
        "notes": list(header.notes),
    }
