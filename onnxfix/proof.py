"""Verification as a product of its own: two models held against each other, or a model against a recorded run.

Everything heavy is imported on the way, where it is needed: `onnxfix --help` passes through this module.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from onnxfix.errors import DetectError, PlanError, UsageError, VerifyError
from onnxfix.request import bind_model, conventions_of, file_of, open_model, read_convention, require_known_sizes

if TYPE_CHECKING:
    from onnxfix.convention.binding import Binding
    from onnxfix.convention.convention import Convention
    from onnxfix.convention.plan import Edits, Plan
    from onnxfix.convention.signature import Signature
    from onnxfix.model.model import Model
    from onnxfix.request import Source, Speech
    from onnxfix.verify.culprit import Culprit
    from onnxfix.verify.options import VerifyOptions
    from onnxfix.verify.report import VerifyReport
    from onnxfix.verify.trace import Trace


def verify(
    source: Source,
    result: Source | None = None,
    *,
    against: str | Path | None = None,
    to: Speech | None = None,
    from_: Speech | None = None,
    sizes: Mapping[str, int] | None = None,
    edits: Edits | None = None,
    options: VerifyOptions | None = None,
) -> VerifyReport:
    """Compares all that two models put out over a stream, each fed its own caches.

    `verify(source, result)` drives both; `verify(result, against=trace)` holds one model against a run that `record`
    or PyTorch stored; `verify(source, result, against=trace)` also requires that the run is one of `source`.

    Args:
        source: The model that is trusted; with `against` alone, the model to verify.
        result: The model that should be the same, under another convention or the same.
        against: A trace: what the trusted model was fed and put out.
        to: The convention of the result, as in `convert`; None: it is detected.
        from_: The convention of the source; None: it is detected, or the trace says it.
        sizes: Sizes that the models do not tell, as in `convert`.
        edits: What else was changed on the way to the result.
        options: How to drive them, and how to compare.

    Raises:
        VerifyError: They differ, cannot be driven, or nothing is proven.
        OnnxfixError: A model or the trace cannot be read, or a convention is not known.
    """
    from onnxfix.verify.lockstep import verify as drive
    from onnxfix.verify.options import VerifyOptions
    from onnxfix.verify.trace import Trace

    options = options or VerifyOptions()
    sizes = {**(sizes or {}), **options.sizes}
    options = replace(options, sizes=sizes)
    against = against or options.trace
    if against is None and result is None:
        hint = "give two models, or a trace: against=TRACE"
        raise UsageError("what is the model held against?", where=_name(source), hint=hint)
    with contextlib.ExitStack() as stack:
        if against is not None:
            trace = stack.enter_context(Trace(against))
            if result is not None:
                _require_recorded(open_model(source), trace)
            judged = source if result is None else result
            return _check(judged, trace, stack, to=to, from_=from_, edits=edits, options=options)
        assert result is not None
        original, converted = open_model(source), open_model(result)
        binding = _bound(original, from_, sizes)
        plan = _plan(binding, converted, to=to, edits=edits, sizes=sizes)
        files = file_of(original, source, stack), file_of(converted, result, stack)
        notes = (*_frozen(plan, edits), *_estranged(converted, original.source_sha256, "the original"))
        with _noting(notes):
            report = drive(*files, plan, options, declared=converted.signature())
    return replace(report, source=_name(source), result=_name(result), notes=(*report.notes, *notes))


def find_culprit(
    source: Source,
    result: Source | None = None,
    *,
    against: str | Path | None = None,
    to: Speech | None = None,
    from_: Speech | None = None,
    sizes: Mapping[str, int] | None = None,
    edits: Edits | None = None,
    options: VerifyOptions | None = None,
    tick: int | None = None,
) -> Culprit | None:
    """Returns the node inside of a result at which it parts from its source; None where both put out the same bits.

    Args:
        source: The model that is trusted; a trace does not show its inside.
        result: The other one.
        against: A trace of `source`, which spares driving it.
        to: The convention of the result, as in `verify`.
        from_: The convention of the source.
        sizes: Sizes that the models do not tell.
        edits: What else was changed on the way to the result.
        options: How to drive them.
        tick: The tick that is known to differ; later ones are not looked at.

    Raises:
        UsageError: There is but one model.
        OnnxfixError: A model or the trace cannot be read, or cannot be run.
    """
    from onnxfix.verify.bisect import find_culprit as find
    from onnxfix.verify.options import VerifyOptions
    from onnxfix.verify.trace import Trace

    options = options or VerifyOptions()
    options = replace(options, sizes={**(sizes or {}), **options.sizes})
    against = against or options.trace
    if result is None:
        hint = "give the model that was recorded too: onnxfix verify ORIGINAL RESULT --against TRACE --bisect"
        raise UsageError("a trace does not show the inside of a model", where="--bisect", hint=hint)
    with contextlib.ExitStack() as stack:
        original, converted = open_model(source), open_model(result)
        trace = None
        if against is not None:
            trace = stack.enter_context(Trace(against))
            _require_recorded(original, trace)
        binding = _bound(original, from_, options.sizes) if trace is None else trace.binding
        plan = _plan(binding, converted, to=to, edits=edits, sizes=options.sizes)
        files = file_of(original, source, stack), file_of(converted, result, stack)
        return find(*files, plan, options, trace=trace, tick=tick)


def _check(
    result: Source, trace: Trace, stack: contextlib.ExitStack, *, to: Speech | None, from_: Speech | None,
    edits: Edits | None, options: VerifyOptions,
) -> VerifyReport:  # fmt: skip
    """Holds a model against a trace."""
    from onnxfix.verify.check import check

    converted = open_model(result)
    _require_convention(trace, from_)
    own = {dim for port in converted.signature().inputs for dim in port.dims or ()}
    said = {name: size for name, size in options.sizes.items() if name not in own}
    require_known_sizes(replace(trace.binding, sizes=said))
    plan = _plan(trace.binding, converted, to=to, edits=edits, sizes=options.sizes)
    file = file_of(converted, result, stack)
    notes = (*_frozen(plan, edits), *_estranged(converted, trace.header.sha256, "the one that was recorded"))
    with _noting(notes), _fitting(_frozen_sizes(plan, None)):
        report = check(file, trace, plan, options, declared=converted.signature())
    return replace(report, source=str(trace.path), result=_name(result), notes=(*report.notes, *notes))


def _estranged(converted: Model, digest: str | None, what: str) -> list[str]:
    """Returns what there is to say of a result that was made from another file."""
    made_from = converted.metadata.get("onnxfix.source_sha256", "")
    is_other = made_from and digest and made_from != digest
    return [f"the result was converted from another file than {what}"] if is_other else []


@contextlib.contextmanager
def _fitting(sizes: Mapping[str, int]) -> Iterator[None]:
    """Says how a run is recorded that a result of fixed sizes can take."""
    from onnxfix.verify.report import DifferenceError

    try:
        yield
    except VerifyError as error:
        if sizes and not isinstance(error, DifferenceError):
            options = " ".join(f"--size {name}={size}" for name, size in sizes.items())
            error.hint = error.hint or f"the result has fixed sizes: `onnxfix record ORIGINAL TRACE.npz {options}`"
        raise


@contextlib.contextmanager
def _noting(notes: Iterable[str]) -> Iterator[None]:
    """Adds notes to the report of what differs: there they are wanted most."""
    from onnxfix.verify.report import DifferenceError

    try:
        yield
    except DifferenceError as error:
        error.report = replace(error.report, notes=(*error.report.notes, *notes))
        raise


def _bound(model: Model, speech: Speech | None, sizes: Mapping[str, int]) -> Binding:
    """Returns the convention that the trusted model speaks."""
    with _of(model):
        return bind_model(model.signature(), from_=speech, sizes=sizes)


def _plan(
    binding: Binding, converted: Model, *, to: Speech | None, edits: Edits | None, sizes: Mapping[str, int]
) -> Plan:
    """Returns what leads from the trusted model to the other; dims that the other has fixed are fixed."""
    from onnxfix.convention.plan import Edits
    from onnxfix.convention.signature import Signature

    edits = edits or Edits()
    ports = converted.signature()
    with _of(converted):
        targets = conventions_of(ports, to, sizes=sizes)
    found: list[Plan] = []
    first: PlanError | None = None
    for target in targets:
        try:
            found.append(_plan_to(target, binding, ports, edits))
        except PlanError as error:
            first = first or error
    if first is not None and not found:
        raise first
    return min(found, key=lambda plan: _distance(_order(Signature(plan.inputs, plan.outputs)), _order(ports)))


def _plan_to(target: Convention, binding: Binding, ports: Signature, edits: Edits) -> Plan:
    """Returns what leads to a convention; the same convention in the same order is left as it is."""
    from onnxfix.convention.plan import make_plan

    is_same = target.caches == binding.convention.caches and _order(binding.signature) == _order(ports)
    goal = None if is_same else target
    if not any("batch" in cache.axes for cache in target.caches):
        edits = replace(edits, dims={**dict.fromkeys(binding.symbols_of("batch"), 1), **edits.dims})
    plan = make_plan(binding, goal, edits)
    fixed = _fixed(plan, ports)
    return make_plan(binding, goal, replace(edits, dims={**fixed, **edits.dims})) if fixed else plan


def _distance(planned: list[str], found: list[str]) -> tuple[int, bool]:
    """Returns how far the ports of a plan are from those that there are; twins may differ in nothing but the order."""
    return len({*found} ^ {*planned}), planned != found


def _order(signature: Signature) -> list[str]:
    return [port.name for port in (*signature.inputs, *signature.outputs)]


def _fixed(plan: Plan, other: Signature) -> dict[str, int]:
    """Returns the symbolic dims of the trusted model that are fixed in the other, whatever has become of its ports."""
    names: dict[str, list[str]] = {name: [name] for name in plan.binding.symbols if name not in plan.symbols}
    for old, new in plan.symbols.items():
        if isinstance(new, str):
            names.setdefault(new, []).append(old)
    fixed: dict[str, int] = {}
    for ports, others in ((plan.inputs, other.inputs), (plan.outputs, other.outputs)):
        dims = {port.name: port.dims or () for port in others}
        for port in ports:
            planned, found = port.dims or (), dims.get(port.name, ())
            for dim, size in zip(planned, found, strict=False) if len(planned) == len(found) else ():
                if isinstance(dim, str) and isinstance(size, int):
                    fixed |= {name: size for name in names.get(dim, ()) if name not in fixed}
    return fixed


def _frozen(plan: Plan, edits: Edits | None) -> list[str]:
    """Returns what there is to say of sizes that the result has fixed, and nobody said so."""
    sizes = [f"{name} = {size}" for name, size in _frozen_sizes(plan, edits).items()]
    return [f"the result has fixed {', '.join(sizes)}: nothing is proven of other sizes"] if sizes else []


def _frozen_sizes(plan: Plan, edits: Edits | None) -> dict[str, int]:
    said = {name for key in (edits.dims if edits else ()) for name in (key, *plan.binding.symbols_of(key))}
    open_dims = {dim for port in plan.binding.signature.inputs for dim in port.dims or () if isinstance(dim, str)}
    sizes = {name: size for name, size in sorted(plan.symbols.items()) if isinstance(size, int)}
    return {name: size for name, size in sizes.items() if name in open_dims - said}


@contextlib.contextmanager
def _of(model: Model) -> Iterator[None]:
    """Says of which of two models it is that nobody knows what it speaks."""
    try:
        yield
    except DetectError as error:
        error.where = error.where or model.name
        raise


def _require_recorded(model: Model, trace: Trace) -> None:
    """Checks that a trace is one of this model.

    Raises:
        TraceError: It is one of another.
    """
    from onnxfix.verify.header import TraceError

    header = trace.header
    if header.sha256:
        is_other = header.sha256 != model.source_sha256
    else:
        is_other = {*_order(header.signature)} != {*_order(model.signature())}
    if is_other:
        hint = f"`onnxfix record {model.name} TRACE.npz` makes one of this model"
        raise TraceError(f"the trace is one of another model than {model.name}", where=str(trace.path), hint=hint)


def _require_convention(trace: Trace, speech: Speech | None) -> None:
    """Checks that a trace speaks what the user says.

    Raises:
        TraceError: It speaks another convention.
    """
    from onnxfix.verify.header import TraceError

    if speech is None:
        return
    wanted, found = read_convention(speech, option="--from"), trace.header.convention
    if wanted.caches != found.caches:
        raise TraceError(f"the trace speaks `{found}`", where=str(trace.path), hint="leave --from out")


def _name(source: Source) -> str:
    """Returns what people call a model."""
    return str(source) if isinstance(source, str | Path) else open_model(source).name


def record(
    model: Source,
    trace: str | Path,
    *,
    from_: Speech | None = None,
    sizes: Mapping[str, int] | None = None,
    options: VerifyOptions | None = None,
) -> Trace:
    """Drives a model and stores what it was fed and put out, for `verify(result, against=trace)`.

    Args:
        model: The model that is trusted.
        trace: Where the run goes, an npz file; it appears whole or not at all.
        from_: The convention of the model; None: it is detected.
        sizes: Sizes that the model does not tell, as in `convert`.
        options: How to drive it.

    Raises:
        DriveError: The model cannot be driven.
        VacuousCheck: The run would prove nothing: no state, no tick, or nothing of the state shows in the outputs.
        ModelWriteError: The trace cannot be written.
        OnnxfixError: The model cannot be read, or its convention is not known.
    """
    from onnxfix.convention.plan import make_plan
    from onnxfix.verify.options import VerifyOptions
    from onnxfix.verify.recording import Origin, require_proof
    from onnxfix.verify.recording import record as drive
    from onnxfix.verify.trace import Trace, appearing

    options = options or VerifyOptions()
    sizes = {**(sizes or {}), **options.sizes}
    original, path = open_model(model), Path(trace)
    _require_other_file(original, options.inputs, path)
    plan = make_plan(_bound(original, from_, sizes), None)
    origin = Origin(Path(_name(model)).name, original.source_sha256 or "")
    with contextlib.ExitStack() as stack:
        file = file_of(original, model, stack)
        temporary = stack.enter_context(appearing(path))
        with drive(file, plan, replace(options, sizes=sizes), temporary, origin=origin) as recorded:
            require_proof(recorded.header.evidence)
    return Trace(path)


def _require_other_file(model: Model, inputs: Path | None, trace: Path) -> None:
    """Refuses to write a trace over what is recorded.

    Raises:
        UsageError: The trace would replace the model, its data, or what it is fed.
    """
    own = [model.path] if model.path else []
    own += [model.folder / location for location, _ in model.external_files()] if model.folder else []
    if trace.exists() and any(path.exists() and path.samefile(trace) for path in own):
        raise UsageError("the trace would replace the model", where=str(trace), hint="name another file")
    if inputs is not None and trace.exists() and Path(inputs).exists() and Path(inputs).samefile(trace):
        raise UsageError("the trace would replace the inputs", where=str(trace), hint="name another file")
