"""The straight road for one model: load, detect, plan, simplify, rewrite, check, write, verify, and only then show.

Everything heavy is imported on the way, where it is needed: `onnxfix --help` passes through this module.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from onnxfix.errors import DriveError, RewriteError
from onnxfix.request import file_of, open_model, plan_conversion, scratch

if TYPE_CHECKING:
    from onnxfix.convention.plan import Edits, Plan
    from onnxfix.model.graph import GraphView
    from onnxfix.model.model import Model
    from onnxfix.report import ConversionReport
    from onnxfix.request import Source, Speech
    from onnxfix.sidefiles.change import SideFile
    from onnxfix.verify.options import VerifyOptions
    from onnxfix.verify.report import VerifyReport

SPLITS = "onnxfix.splits"
"""Remembers the axes that an exporter took apart by Split, so that converting back gives its operators again."""
Progress: TypeAlias = Callable[[str, int, int], None]
"""Is told the stage (`load`, `plan`, `simplify`, `rewrite`, `check`, `write`, `verify`), how many of its steps are done
and how many there are; 0 of 0 where it has none."""


def convert(
    source: Source,
    destination: str | Path | None = None,
    *,
    to: Speech | None = None,
    from_: Speech | None = None,
    sizes: Mapping[str, int] | None = None,
    edits: Edits | None = None,
    simplify: bool = True,
    cancel: bool = True,
    verify: bool | VerifyOptions = True,
    stamp: bool = True,
    write_config: bool = False,
    progress: Progress | None = None,
) -> ConversionReport:
    """Converts one model from the cache convention that it speaks into another.

    The source is never modified, and the destination shows the whole result or nothing new, whatever goes wrong.

    Args:
        source: A file, or a model in memory, which is not modified either.
        destination: Where the result goes; it may be the source. None leaves it in memory, as
            `ConversionReport.model`.
        to: A convention of the library by name, a TOML file, a sentence or several (one a cache), or a `Convention`.
            None: the convention that replaced the source's upstream.
        from_: The convention of the source, in the same forms; None: it is detected.
        sizes: Sizes that neither dims nor metadata tell, by axis (`head`), cache and axis (`attention.head`) or
            symbolic dim.
        edits: Ports to rename or cast, and dims to set, besides.
        simplify: Whether to simplify the graph first.
        cancel: Whether to cancel the adapters against the graph.
        verify: Whether, or how, source and result are driven side by side before the result is shown.
        stamp: Whether to write entries `onnxfix.*` into `metadata_props`.
        write_config: Whether the files that runtimes read beside the source (`genai_config.json`, Triton's
            `config.pbtxt`) follow the conversion; they are shown together with the result.
        progress: Is told how far the conversion is.

    Raises:
        OnnxfixError: The conversion failed; `onnxfix.errors` has the kinds.
    """
    from onnxfix.report import NodeCounts, Outcome, report_of
    from onnxfix.sidefiles.beside import asked_side_files
    from onnxfix.surgery.rewrite import rewrite

    clock = _Clock(progress)
    with clock.stage("load"):
        original = open_model(source)
    with clock.stage("plan"):
        plan = plan_conversion(original, to=to, from_=from_, sizes=sizes, edits=edits)
        place = None if destination is None else Path(destination)
        sides, told = asked_side_files(plan, original.path, place, is_asked=write_config)
        report = report_of(plan, str(original.path or ""), str(destination or ""), sides, told)
    if plan.is_identity:
        with clock.stage("write"):
            sides = _copy(original, place, sides)
        return replace(report, side_files=sides, seconds=clock.seconds, model=original if place is None else None)
    options = _options(verify, clock)
    model = original if isinstance(source, str | Path) else _duplicate(original)
    nodes = len(model.proto.graph.node)
    with clock.stage("simplify"):
        notes, graph = _simplify(model) if simplify else (("not simplified, as asked",), None)
    with clock.stage("rewrite"):
        splits = original.metadata.get(SPLITS, "").split()
        surgery = rewrite(model, plan, cancel=cancel, splits=splits, graph=graph)
    with clock.stage("check"):
        _require_planned_ports(model, plan)
        model.require_no_new_complaint(lambda: open_model(source))
        if stamp:
            _stamp(model, plan, _digest(original), options, surgery.splits)
    proof, sides = _deliver(model, original, source, place, plan, options, sides, clock)
    return replace(
        report,
        outcome=Outcome.CONVERTED,
        nodes=NodeCounts(nodes, surgery.nodes_before, surgery.nodes_adapters, surgery.nodes_after),
        copies=surgery.copies,
        fired=surgery.fired,
        refused=surgery.refused,
        proof=proof,
        notes=(*report.notes, *notes),
        side_files=sides,
        seconds=clock.seconds,
        model=model if destination is None else None,
    )


def _options(verify: bool | VerifyOptions, clock: _Clock) -> VerifyOptions | None:
    """Returns how to verify, with the clock told of every tick; None for not at all."""
    from onnxfix.verify.options import VerifyOptions

    if verify is False:
        return None
    options = VerifyOptions() if verify is True else verify
    own = options.progress

    def tell(done: int, total: int) -> None:
        clock.tell("verify", done, total)
        if own is not None:
            own(done, total)

    return replace(options, progress=tell)


def _digest(model: Model) -> str:
    return model.source_sha256 or hashlib.sha256(model.proto.SerializeToString()).hexdigest()


def _duplicate(model: Model) -> Model:
    """Returns a copy that may be changed."""
    from onnxfix.model.model import Model

    proto = type(model.proto)()
    proto.CopyFrom(model.proto)
    return Model(proto, path=model.path, folder=model.folder, source_sha256=model.source_sha256)


def _require_planned_ports(model: Model, plan: Plan) -> None:
    signature = model.signature()
    for kind, planned, made in (("input", plan.inputs, signature.inputs), ("output", plan.outputs, signature.outputs)):
        if planned != made:
            wrong = next((port.name for port in planned if port not in made), planned[0].name)
            message = f"the rewritten model does not have the {kind} `{wrong}` as planned"
            raise RewriteError(message, where=model.name, hint="this is a fault of onnxfix: please report it")


def _stamp(model: Model, plan: Plan, digest: str, options: VerifyOptions | None, splits: Sequence[str]) -> None:
    """Says in the model where it came from; entries of an earlier conversion are replaced."""
    from onnxfix import __version__

    model.set_metadata("onnxfix.version", __version__)
    model.set_metadata("onnxfix.from", str(plan.binding.convention))
    model.set_metadata("onnxfix.to", str(plan.target or plan.binding.convention))
    model.set_metadata("onnxfix.source_sha256", digest)
    model.set_metadata("onnxfix.verified", _proven(options))
    if splits:
        model.set_metadata(SPLITS, " ".join(splits))
    else:
        model.remove_metadata(SPLITS)


def _proven(options: VerifyOptions | None) -> str:
    """Returns what the result says of its proof; how many ticks that takes by itself is not known yet."""
    if options is None:
        return "no"
    return "yes" if options.ticks is None else f"{options.ticks} tick{'' if options.ticks == 1 else 's'}"


def _copy(model: Model, destination: Path | None, sides: tuple[SideFile, ...]) -> tuple[SideFile, ...]:
    """Writes the model as it is, unless it stands there already, and its side files; returns these as written."""
    from onnxfix.sidefiles.delivery import StagedSideFiles

    if destination is None:
        return sides
    with contextlib.ExitStack() as stack:
        staged = None if _stands_at(model, destination) else stack.enter_context(model.stage(destination))
        return stack.enter_context(StagedSideFiles(sides)).commit(staged)


def _stands_at(model: Model, destination: Path) -> bool:
    with contextlib.suppress(OSError, ValueError):  # there is no such file yet, or there never can be
        return model.path is not None and destination.samefile(model.path)
    return False


def _simplify(model: Model) -> tuple[tuple[str, ...], GraphView | None]:
    """Simplifies the graph in place; returns what the user should know of it, and the graph where that is at hand."""
    from onnxfix.surgery.simplify import simplify

    report = simplify(model)
    return ((f"not simplified: {report.reason}",) if report.reason else ()), report.graph


def _deliver(
    model: Model,
    original: Model,
    source: Source,
    destination: Path | None,
    plan: Plan,
    options: VerifyOptions | None,
    sides: tuple[SideFile, ...],
    clock: _Clock,
) -> tuple[VerifyReport | None, tuple[SideFile, ...]]:
    """Writes the result and its side files under temporary names, proves it there, and only then moves them."""
    from onnxfix.sidefiles.delivery import StagedSideFiles

    if destination is None and options is None:
        return None, sides
    with contextlib.ExitStack() as stack:
        with clock.stage("write"):
            path = scratch(stack) / "result.onnx" if destination is None else destination
            staged = stack.enter_context(model.stage(path))
            written = stack.enter_context(StagedSideFiles(sides))
        proof = None
        if options is not None:
            from onnxfix.verify.lockstep import verify as drive

            with clock.stage("verify"):
                try:
                    proof = drive(file_of(original, source, stack), staged.path, plan, options)
                except DriveError as error:
                    error.hint = _with_way_out(error.hint)
                    raise
        if destination is None:
            return proof, sides
        with clock.stage("write"):
            return proof, written.commit(staged)


def _with_way_out(hint: str) -> str:
    way = "--no-verify converts without a proof"
    return hint if way in hint else "\n  ".join(filter(None, (hint, way)))


class _Clock:
    """Takes the time of each stage, and tells how far the conversion is."""

    def __init__(self, progress: Progress | None) -> None:
        self.seconds: dict[str, float] = {}
        self._progress = progress

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Times a block; blocks of one name are added up."""
        self.tell(name, 0, 0)
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def tell(self, name: str, done: int, total: int) -> None:
        """Passes on how far a stage is."""
        if self._progress is not None:
            self._progress(name, done, total)
