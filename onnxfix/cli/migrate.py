"""`onnxfix migrate ZOO OUT`."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from onnxfix.cli.options import from_option, json_option, read_dims, read_pairs, read_sizes, size_option
from onnxfix.cli.report import LeavingReports
from onnxfix.errors import ExitCode, OnnxfixError, UsageError

if TYPE_CHECKING:
    from onnxfix.zoo.migration import Migration, Request
    from onnxfix.zoo.pool import Runner
    from onnxfix.zoo.settings import Change
    from onnxfix.zoo.survey import Survey

_EPILOG = """\b
Examples:
  onnxfix migrate models migrated --to optimum
  onnxfix migrate models migrated --check
  onnxfix migrate models --in-place --to wenet-kv
  find models -name 'encoder*.onnx' -print0 | onnxfix migrate - migrated
  onnxfix migrate --verify-only migrated

\b
Exit codes: that of the worst outcome. 0 all converted, unchanged or skipped;
1 --check, and something would change; 2 usage; 3 a model failed, or the
destination cannot be written; 4 a result was refused by verification; 70 a
bug in onnxfix; 130 interrupted. Started again, it goes on where it was.
"""


class InterruptedMigrationError(OnnxfixError):
    """Somebody has ended a migration; what is done is done."""

    exit_code = ExitCode.INTERRUPTED


@click.command(epilog=_EPILOG)
@click.argument("places", nargs=-1, metavar="ZOO [OUT]")
@click.option(
    "--to", multiple=True, metavar="CONVENTION",
    help="What all models shall speak, said as for `convert`; onnxfix.toml says it for some. Without it: what replaced "
    "each model's convention upstream.",
)  # fmt: skip
@from_option
@size_option
@click.option("--set-dim", "dims", multiple=True, metavar="DIM=N|NAME", help="Freeze or rename a symbolic dim.")
@click.option("--feed", "feeds", multiple=True, metavar="PORT=KIND[:ARGS]", help="What to feed, as for `convert`.")
@click.option("--ticks", type=click.IntRange(min=1), help="How many streaming calls are compared.")
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), help="Of the random inputs.  [default: 0]")
@click.option("--no-simplify", is_flag=True, help="Leave the graphs as they are, but for the caches' boundary.")
@click.option("--no-verify", is_flag=True, help="Do not drive source and result side by side: nothing is proven.")
@click.option("--record", is_flag=True, help="Keep a run of each source, that --verify-only needs when it is gone.")
@click.option("--only-models", is_flag=True, help="Leave other files behind.")
@click.option("--in-place", is_flag=True, help="Put each result in the place of its source, which is kept aside.")
@click.option("--no-backup", is_flag=True, help="With --in-place: do not keep the sources.")
@click.option("--jobs", "-j", type=click.IntRange(min=1), help="Models at a time; without it, as many as fit.")
@click.option("--time-limit", metavar="TIME", help="What one model may take: 90s, 10m, 1.5h.  [default: 1h]")
@click.option("--memory-limit", metavar="SIZE", help="Memory that one model may take: 500M, 8G.")
@click.option("--scheduler", metavar="ADDRESS", help="Let the workers of a Dask cluster do the work: tcp://HOST:8786.")
@click.option(
    "--state", "home", type=click.Path(path_type=Path), metavar="FOLDER",
    help="Where the journals of remote destinations are kept on this machine.  [default: the user's]",
)  # fmt: skip
@click.option("--fresh", is_flag=True, help="Start over: what an earlier run did counts for nothing.")
@click.option("--check", is_flag=True, help="Plan only, and write nothing; exit 1 if something would change.")
@click.option("--verify-only", is_flag=True, help="Prove the migration that stands at OUT again, and write nothing.")
@click.option("--quiet", "-q", is_flag=True, help="Print errors only.")
@json_option
def migrate(
    places: tuple[str, ...], to: tuple[str, ...], from_: tuple[str, ...], sizes: tuple[str, ...],
    dims: tuple[str, ...], feeds: tuple[str, ...], ticks: int | None, seed: int | None, no_simplify: bool,
    no_verify: bool, record: bool, only_models: bool, in_place: bool, no_backup: bool, jobs: int | None,
    time_limit: str | None, memory_limit: str | None, scheduler: str | None, home: Path | None, fresh: bool,
    check: bool, verify_only: bool, quiet: bool, as_json: bool,
) -> int:  # fmt: skip
    """Convert every model of ZOO, prove each result, and leave a tree of them at OUT.

    ZOO is a folder, a file, a glob in quotes, a URL of one of these, or - for a list of files on standard input; OUT is
    a folder or a URL. Rules for some of the models stand in ZOO/onnxfix.toml. What is done is written down in
    OUT/.onnxfix: the same command again does the rest.
    """
    from onnxfix.zoo.limits import Limits, read_bytes, read_seconds
    from onnxfix.zoo.migration import Request
    from onnxfix.zoo.stores.places import place_of

    limits = Limits(
        jobs,
        None if time_limit is None else read_seconds(time_limit, f"--time-limit {time_limit}"),
        None if memory_limit is None else read_bytes(memory_limit, f"--memory-limit {memory_limit}"),
    )
    zoo, out = _places(places, has_out=not in_place, is_optional=check or verify_only)
    request = Request(
        None if out is None else place_of(out),
        _change(to, from_, sizes, dims, feeds, ticks, seed, no_simplify, no_verify, record),
        limits, in_place, not no_backup, only_models, fresh, home,
    )  # fmt: skip
    if no_backup and not in_place:
        raise UsageError("there is nothing to back up", where="--no-backup", hint="it goes with --in-place")
    start = time.perf_counter()
    with _interruptible(is_written=not (check or verify_only)), LeavingReports() as reports:
        migration = _run(zoo, request, reports, scheduler, check=check, verify_only=verify_only, quiet=quiet)
    return _told(migration, reports.page, time.perf_counter() - start, quiet=quiet, as_json=as_json)


def _places(places: tuple[str, ...], *, has_out: bool, is_optional: bool) -> tuple[str, str | None]:
    """Returns the zoo and the destination, where there is one."""
    usage = "onnxfix migrate ZOO OUT, onnxfix migrate ZOO --in-place, or onnxfix migrate --verify-only OUT"
    if not places:
        raise UsageError("what is to be migrated?", where="ZOO", hint=usage)
    if len(places) > (2 if has_out else 1):
        hint = f"{usage}; a glob stands in quotes" if has_out else "with --in-place, there is no OUT"
        raise UsageError(f"`{places[-1]}` is one place too many", hint=hint)
    if has_out and len(places) == 1 and not is_optional:
        raise UsageError("where do the results go?", where="OUT", hint=usage)
    return places[0], places[1] if len(places) == 2 else None


def _change(
    to: tuple[str, ...], from_: tuple[str, ...], sizes: tuple[str, ...], dims: tuple[str, ...],
    feeds: tuple[str, ...], ticks: int | None, seed: int | None, no_simplify: bool, no_verify: bool, record: bool,
) -> Change:  # fmt: skip
    from onnxfix.zoo.settings import Change

    return Change(
        _located(to) or None, _located(from_) or None, read_sizes("--size", sizes), read_dims("--set-dim", dims),
        _feeds(feeds), ticks, seed, False if no_simplify else None, False if no_verify else None,
        is_recorded=True if record else None,
    )  # fmt: skip


def _feeds(texts: tuple[str, ...]) -> dict[str, str]:
    """Returns what to feed; a slip of the pen shows before any work is done."""
    if not (rules := read_pairs("--feed", texts)):
        return {}  # what reads them needs numpy, and nothing else here does
    from onnxfix.verify.feed import Feed

    for port, rule in rules.items():
        Feed.parse(port, rule)
    return rules


def _located(speech: tuple[str, ...]) -> tuple[str, ...]:
    """Returns how a convention is named, files by their whole path: a later run may start from another folder."""
    from onnxfix.request import is_sentence

    is_file = [text.endswith(".toml") and not is_sentence(text) for text in speech]
    return tuple(str(Path(text).resolve()) if own else text for text, own in zip(speech, is_file, strict=True))


def _run(
    zoo: str, request: Request, reports: LeavingReports, scheduler: str | None, *, check: bool, verify_only: bool,
    quiet: bool,
) -> Migration:  # fmt: skip
    from onnxfix.cli.zoo_progress import ZooProgress
    from onnxfix.zoo.migrate import migrate
    from onnxfix.zoo.preview import check as preview
    from onnxfix.zoo.proving import prove
    from onnxfix.zoo.state import open_state
    from onnxfix.zoo.stores.places import place_of

    with ZooProgress(quiet) as progress:
        if verify_only:
            _require_nothing_else(request)
            return prove(place_of(zoo), request.limits, progress, _runner(scheduler), request.home)
        survey = _survey(zoo, request.out)
        if check:
            return preview(survey, request, progress, _runner(scheduler))
        out = request.destination(survey.zoo)
        reports.state = None if out is None else open_state(out, request.home)
        return migrate(survey, request, progress, _runner(scheduler))


@contextlib.contextmanager
def _interruptible(*, is_written: bool) -> Iterator[None]:
    """Says what it means that somebody has ended the block; also a second time, while it cleans up."""
    try:
        yield
    except KeyboardInterrupt:
        hint = "the same command goes on where it was" if is_written else ""
        raise InterruptedMigrationError("interrupted", hint=hint) from None


def _runner(scheduler: str | None) -> Runner | None:
    """Returns who does the work: the workers of a cluster; None: this machine."""
    if scheduler is None:
        return None
    from onnxfix.zoo.cluster import run_in_cluster

    # What Dask writes of its own on standard error would stand among what is said here, and say it in other words.
    logging.disable(logging.CRITICAL)
    return run_in_cluster(scheduler)


def _survey(zoo: str, out: Path | str | None) -> Survey:
    from onnxfix.zoo.stores.places import place_of
    from onnxfix.zoo.survey import read_list, survey, survey_files

    if zoo == "-":
        listed = b"" if sys.stdin is None else sys.stdin.buffer.read()  # None: it is closed
        return survey_files(read_list(os.fsdecode(listed)), skip=out)
    return survey(place_of(zoo), skip=out)


def _require_nothing_else(request: Request) -> None:
    from onnxfix.zoo.migration import Request

    if request != Request(limits=request.limits, home=request.home):
        hint = "how the results were made stands in the journal"
        raise UsageError("only limits, --scheduler and --state go with it", where="--verify-only", hint=hint)


def _told(migration: Migration, page: str | None, seconds: float, *, quiet: bool, as_json: bool) -> int:
    from onnxfix.cli.console import people, print_json
    from onnxfix.cli.zoo_summary import migration_to_json, show_migration
    from onnxfix.verify.render.escaping import shown

    if not quiet or migration.exit_code > ExitCode.WOULD_CHANGE:
        show_migration(people(), migration, seconds, is_quiet=quiet)
    if page is not None and not quiet:
        people().print(f"report  {shown(page)}", soft_wrap=True)
    if as_json:
        print_json(migration_to_json(migration, seconds))
    return migration.exit_code
