"""`onnxfix verify ORIGINAL CONVERTED` and `onnxfix verify CONVERTED --against TRACE.npz`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from onnxfix.cli.options import from_option, json_option, read_dims, read_pairs, read_sizes, size_option
from onnxfix.errors import UsageError

if TYPE_CHECKING:
    from onnxfix.verify.compare import Tolerance

PROVIDERS = ("cpu", "cuda", "tensorrt")
_FILE = click.Path(path_type=Path)
_EPILOG = """\b
Examples:
  onnxfix verify old.onnx new.onnx
  onnxfix verify old.onnx new.onnx --ticks 60 --junit verify.xml --html verify.html
  onnxfix verify old.onnx new.onnx --optimize --tolerance output=1e-4,1e-3
  onnxfix verify old.onnx new.onnx --bisect
  onnxfix verify new.onnx --against trace.npz

\b
Exit codes: 0 verified; 2 usage; 3 a file cannot be read or its convention is
not known; 4 they differ, or nothing is proven; 70 a bug in onnxfix;
130 interrupted.
"""


@click.command(epilog=_EPILOG)
@click.argument("models", nargs=-1, type=_FILE, metavar="[ORIGINAL] CONVERTED")
@click.option("--against", type=_FILE, metavar="TRACE.npz", help="A run that `onnxfix record` stored, for ORIGINAL.")
@from_option
@click.option("--to", multiple=True, metavar="CONVENTION", help="What CONVERTED speaks; without it, it is detected.")
@size_option
@click.option("--rename", multiple=True, metavar="OLD=NEW", help="A port has another name in CONVERTED.")
@click.option("--cast", multiple=True, metavar="PORT=DTYPE", help="A port has another element type in CONVERTED.")
@click.option("--set-dim", "dims", multiple=True, metavar="DIM=N|NAME", help="A dim is frozen or renamed in CONVERTED.")
@click.option(
    "--ticks",
    type=click.IntRange(min=0),
    help="How many streaming calls; without it as many as the longest cache remembers, from 8 to 64.",
)
@click.option("--seed", type=click.IntRange(min=0), help="Of the random inputs.  [default: 0]")
@click.option("--batch", type=click.IntRange(min=1), help="How many streams at once.")
@click.option(
    "--feed", "feeds", multiple=True, metavar="PORT=KIND[:ARGS]",
    help="What to feed to an input of ORIGINAL: zeros, ones, constant:VALUE, noise[:SCALE], tokens:COUNT, "
    "range[:START], step:START,BY, tone[:LEVEL[,HERTZ]].",
)  # fmt: skip
@click.option("--inputs", type=_FILE, metavar="FILE", help="Inputs of ORIGINAL, recorded: an npz file or a folder.")
@click.option("--teacher", is_flag=True, help="Give CONVERTED the state of ORIGINAL at every tick.")
@click.option("--optimize", is_flag=True, help="Let ONNX Runtime optimise both; outputs may then differ a little.")
@click.option(
    "--provider",
    "providers",
    multiple=True,
    type=click.Choice(PROVIDERS),
    help="What CONVERTED runs on; several may be given.  [default: cpu]",
)
@click.option("--atol", type=float, help="The absolute difference that is allowed.")
@click.option("--rtol", type=float, help="The relative difference that is allowed.")
@click.option(
    "--tolerance",
    "tolerances",
    multiple=True,
    metavar="PORT=ATOL[,RTOL]",
    help="What is allowed in one output of CONVERTED.",
)
@click.option("--bisect", is_flag=True, help="Where they differ, find the first tensor inside the graph that does.")
@click.option("--junit", type=_FILE, metavar="FILE", help="Write JUnit XML, one test case for each output and state.")
@click.option("--summary", type=_FILE, metavar="FILE", help="Write a summary in Markdown.")
@click.option("--html", type=_FILE, metavar="FILE", help="Write a page with a plot for each output.")
@click.option("--quiet", "-q", is_flag=True, help="Print errors only.")
@json_option
def verify(
    models: tuple[Path, ...], against: Path | None, from_: tuple[str, ...], to: tuple[str, ...], sizes: tuple[str, ...],
    rename: tuple[str, ...], cast: tuple[str, ...], dims: tuple[str, ...], ticks: int | None, seed: int | None,
    batch: int | None, feeds: tuple[str, ...], inputs: Path | None, teacher: bool, optimize: bool,
    providers: tuple[str, ...], atol: float | None, rtol: float | None, tolerances: tuple[str, ...], bisect: bool,
    junit: Path | None, summary: Path | None, html: Path | None, quiet: bool, as_json: bool,
) -> int:  # fmt: skip
    """Drive ORIGINAL and CONVERTED side by side, each with its own caches, and compare all that they put out.

    With --against, CONVERTED is held against a recorded run instead, and ORIGINAL is not needed.
    """
    from onnxfix.cli.proving import Proving
    from onnxfix.cli.report_files import ReportFiles
    from onnxfix.convention.plan import Edits
    from onnxfix.verify.feed import Feed
    from onnxfix.verify.options import VerifyOptions

    paths = {"--junit": junit, "--summary": summary, "--html": html}
    files = ReportFiles({option: path for option, path in paths.items() if path is not None})
    # Before anything else may fail: what an earlier run left would be taken for what this one says.
    files.prepare((*models, *(path for path in (against, inputs) if path)))
    _require_models(models, against)
    if bisect and len(models) == 1:
        hint = "onnxfix verify ORIGINAL CONVERTED --against TRACE.npz --bisect"
        raise UsageError("the inside of ORIGINAL is needed too", where="--bisect", hint=hint)
    if against is not None:
        _require_no_feeds(seed=seed, batch=batch, feed=feeds, inputs=inputs)
    rules = read_pairs("--feed", feeds)
    for port, rule in rules.items():
        Feed.parse(port, rule)  # a slip of the pen shows before any work is done
    _tolerance("--atol", str(atol or 0)), _tolerance("--rtol", str(rtol or 0))
    options = VerifyOptions(
        ticks, seed or 0, inputs, rules, read_sizes("--size", sizes), teacher=teacher, optimize=optimize,
        atol=atol, rtol=rtol, tolerances=_tolerances(tolerances),
        providers=tuple(dict.fromkeys(providers)) or ("cpu",), batch=batch,
    )  # fmt: skip
    return Proving(
        models, against, from_=from_ or None, to=to or None, options=options,
        edits=Edits(read_pairs("--rename", rename), read_dims("--set-dim", dims), read_pairs("--cast", cast)),
        files=files, has_bisect=bisect, is_quiet=quiet, as_json=as_json,
    ).run()  # fmt: skip


def _require_models(models: tuple[Path, ...], against: Path | None) -> None:
    if len(models) == 2 or (len(models) == 1 and against is not None):
        return
    hint = "onnxfix verify ORIGINAL CONVERTED, or onnxfix verify CONVERTED --against TRACE.npz"
    if len(models) == 1:
        raise UsageError("what is it held against?", where=str(models[0]), hint=hint)
    raise UsageError(f"two models are expected here, not {len(models)}", hint=hint)


def _require_no_feeds(**given: object) -> None:
    for name, value in given.items():
        if value:
            raise UsageError("what is fed stands in the trace", where=f"--{name}", hint="leave one of the two out")


def _tolerances(texts: tuple[str, ...]) -> dict[str, Tolerance]:
    return {
        port: _tolerance(f"--tolerance {port}={text}", text) for port, text in read_pairs("--tolerance", texts).items()
    }


def _tolerance(where: str, text: str) -> Tolerance:
    from onnxfix.verify.compare import Tolerance

    absolute, comma, relative = text.partition(",")
    try:
        return Tolerance(float(absolute), float(relative) if comma else 0.0)
    except (ValueError, UsageError):
        hint = "a finite number, 0 or more" if where in ("--atol", "--rtol") else "PORT=ATOL or PORT=ATOL,RTOL"
        raise UsageError(f"`{text}` is no tolerance", where=where, hint=hint) from None
