"""`onnxfix convert OLD NEW`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from onnxfix.cli.options import from_option, json_option, read_dims, read_pairs, read_sizes, size_option
from onnxfix.errors import UsageError

if TYPE_CHECKING:
    from onnxfix.convention.plan import Edits
    from onnxfix.verify.options import VerifyOptions

_EPILOG = """\b
Examples:
  onnxfix convert old.onnx new.onnx
  onnxfix convert old.onnx new.onnx --to optimum
  onnxfix convert old.onnx --to optimum --check
  onnxfix convert old/model.onnx new/model.onnx --to genai --write-config
  onnxfix convert old.onnx new.onnx --to 'past.{layer}.{kv} -> present.{layer}.{kv}: batch head time dim'

\b
Exit codes: 0 done or nothing to do; 1 --check or --diff, and something would
change; 2 usage; 3 not converted; 4 not verified; 70 a bug in onnxfix;
130 interrupted. In all but 0 nothing new is visible at NEW.
"""


@click.command(epilog=_EPILOG)
@click.argument("old", type=click.Path(path_type=Path))
@click.argument("new", type=click.Path(path_type=Path), required=False)
@click.option(
    "--to", multiple=True, metavar="CONVENTION",
    help="What the model shall speak: a name (see `onnxfix conventions`), a TOML file, a genai_config.json, or "
    "sentences 'PAST -> PRESENT: LAYOUT', one --to for each cache. Without it: what replaced its convention upstream.",
)  # fmt: skip
@from_option
@size_option
@click.option("--set-dim", "dims", multiple=True, metavar="DIM=N|NAME", help="Freeze or rename a symbolic dim.")
@click.option("--rename", multiple=True, metavar="OLD=NEW", help="Rename a port of the result.")
@click.option("--cast", multiple=True, metavar="PORT=DTYPE", help="Give a port of the result another element type.")
@click.option(
    "--write-config", is_flag=True,
    help="Write what runtimes read beside OLD (genai_config.json, Triton's config.pbtxt) for NEW; originals are kept.",
)  # fmt: skip
@click.option("--no-simplify", is_flag=True, help="Leave the graph as it is, but for the cache's boundary.")
@click.option("--no-cancel", is_flag=True, help="Leave the adapters at the boundary.")
@click.option("--no-stamp", is_flag=True, help="Write no onnxfix.* metadata.")
@click.option("--no-verify", is_flag=True, help="Do not drive source and result side by side: nothing is proven.")
@click.option(
    "--ticks", type=click.IntRange(min=1),
    help="How many streaming calls; without it as many as the longest cache remembers, from 8 to 64.",
)  # fmt: skip
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the random inputs.")
@click.option(
    "--feed", "feeds", multiple=True, metavar="PORT=KIND[:ARGS]",
    help="What to feed to an input of OLD: zeros, ones, constant:VALUE, noise[:SCALE], tokens:COUNT, range[:START], "
    "step:START,BY.",
)  # fmt: skip
@click.option("--inputs", type=click.Path(path_type=Path), metavar="FILE.npz", help="Inputs of OLD, recorded.")
@click.option("--check", is_flag=True, help="Print the plan and write nothing; exit 1 if something would change.")
@click.option("--diff", is_flag=True, help="Print what would change, as a diff of the model's text; write nothing.")
@click.option("--quiet", "-q", is_flag=True, help="Print errors only.")
@json_option
def convert(
    old: Path, new: Path | None, to: tuple[str, ...], from_: tuple[str, ...], sizes: tuple[str, ...],
    dims: tuple[str, ...], rename: tuple[str, ...], cast: tuple[str, ...], write_config: bool,
    no_simplify: bool, no_cancel: bool, no_stamp: bool, no_verify: bool, ticks: int | None, seed: int,
    feeds: tuple[str, ...], inputs: Path | None,
    check: bool, diff: bool, quiet: bool, as_json: bool,
) -> int:  # fmt: skip
    """Rewrite the caches of OLD from one convention into another, prove the result against OLD, and write it to NEW."""
    from onnxfix.cli.job import Job

    job = Job(
        old,
        to=to or None,
        from_=from_ or None,
        sizes=read_sizes("--size", sizes),
        edits=_edits(rename, dims, cast),
        simplify=not no_simplify,
        cancel=not no_cancel,
        stamp=not no_stamp,
        write_config=write_config,
        options=_verify_options(ticks, seed, inputs, feeds),
        is_verified=not no_verify,
        is_quiet=quiet,
        as_json=as_json,
    )
    if check or diff:
        return job.preview(new or old, as_plan=check, as_diff=diff)
    if new is None:
        raise UsageError("where does the result go?", where="NEW", hint="onnxfix convert OLD NEW; NEW may be OLD")
    return job.run(new)


def _edits(rename: tuple[str, ...], dims: tuple[str, ...], cast: tuple[str, ...]) -> Edits:
    from onnxfix.convention.plan import Edits

    return Edits(read_pairs("--rename", rename), read_dims("--set-dim", dims), read_pairs("--cast", cast))


def _verify_options(ticks: int | None, seed: int, inputs: Path | None, feeds: tuple[str, ...]) -> VerifyOptions:
    from onnxfix.verify.feed import Feed
    from onnxfix.verify.options import VerifyOptions

    rules = read_pairs("--feed", feeds)
    for port, rule in rules.items():
        Feed.parse(port, rule)  # a slip of the pen shows before any work is done
    return VerifyOptions(ticks, seed, inputs, rules)
