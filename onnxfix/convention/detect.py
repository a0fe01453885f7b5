"""Which convention does a model speak? Candidates in order, each with its reasons."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from onnxfix.convention.binding import SHARED, Binding, bind
from onnxfix.convention.convention import Convention
from onnxfix.convention.foreign import foreign_convention
from onnxfix.convention.load import library
from onnxfix.convention.matching import is_kin
from onnxfix.convention.signature import Signature
from onnxfix.convention.sketch import ordered_units
from onnxfix.errors import DetectError

_DESCRIBE = "describe its caches: --from 'PAST -> PRESENT: LAYOUT' (once a cache), or a TOML file"


@dataclass(frozen=True)
class Candidate:
    """A convention that fits a model.

    Attributes:
        binding: The convention, bound to the model.
        ports: How many inputs and outputs it explains as cache.
        score: How much else speaks for it (ports by role, dim names, sizes that agree), less what it lacks.
        conflicts: How many sizes speak against it: caches or metadata that disagree.
        reasons: The same in words; those against it begin with `but`.
        twins: The names of the other candidates that read the same caches in the same ports, in the same layouts.
    """

    binding: Binding
    ports: int
    score: int
    conflicts: int
    reasons: tuple[str, ...]
    twins: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The convention's name."""
        return str(self.binding.convention)

    @property
    def words(self) -> int:
        """How much the convention says: its caches, and the other ports that it asks for."""
        convention = self.binding.convention
        asked = [spec for spec in (*convention.inputs, *convention.outputs) if not spec.optional]
        return len(convention.caches) + len(asked)

    @property
    def rank(self) -> tuple[int, int, int]:
        """The larger, the better."""
        return (-self.conflicts, self.ports, self.score)


@dataclass(frozen=True)
class Rejection:
    """A convention of which the model has some cache ports, but that does not fit: `reason` says why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Detection:
    """All conventions that fit, and those that nearly did.

    Attributes:
        candidates: Best first; of equally good ones, the one whose convention says least.
        rejections: With their reasons.
        refused: The convention that the model speaks, where that is one that onnxfix recognises only to refuse it;
            others, however well they fit, are no candidates then.
    """

    candidates: tuple[Candidate, ...]
    rejections: tuple[Rejection, ...]
    refused: Convention | None = None

    @property
    def best(self) -> Candidate | None:
        """The one best candidate; None if there is none, or two are equally good and read the model differently."""
        if not self.candidates:
            return None
        first = self.candidates[0]
        rivals = [one for one in self.candidates[1:] if one.rank == first.rank and one.name not in first.twins]
        return None if rivals else first

    @property
    def likely(self) -> tuple[Candidate, ...]:
        """The candidates that the caches alone do not tell apart: those as good as the first, and its twins."""
        first = self.candidates[:1]
        return tuple(one for one in self.candidates if one.rank == first[0].rank or one.name in first[0].twins)

    def choose(self) -> Candidate:
        """Returns the best candidate.

        Raises:
            DetectError: No convention fits, two are equally good, or the model speaks one that is refused.
        """
        if self.refused is not None:
            message = f"the model speaks `{self.refused}`, which onnxfix does not move: {self.refused.refused}"
            raise DetectError(message, hint="; ".join(filter(None, (self.refused.needs, f"or {_DESCRIBE}"))))
        if self.best is not None:
            return self.best
        if self.candidates:
            names = [one.name for one in self.candidates if one.rank == self.candidates[0].rank]
            hint = f"say which with --from, for example --from {names[0]}"
            raise DetectError(f"the model fits {' and '.join(names)} equally well", hint=hint)
        nearly = "".join(f"\n  not {one.name}: {one.reason}" for one in self.rejections)
        raise DetectError(f"the model speaks no known convention{nearly}", hint=_DESCRIBE)


def detect(
    signature: Signature, sizes: Mapping[str, int] | None = None, conventions: Iterable[Convention] | None = None
) -> Detection:
    """Ranks the conventions that fit a model.

    Args:
        signature: The model's ports and metadata.
        sizes: Sizes that the user gave, as in `bind`.
        conventions: The conventions to try; the library if None.
    """
    refused = foreign_convention(signature)
    candidates: list[Candidate] = []
    rejections: list[Rejection] = []
    for convention in library().values() if conventions is None else conventions:
        try:
            binding = bind(convention, signature, sizes)
        except DetectError as error:
            if _has_some_port(convention, signature):
                rejections.append(Rejection(str(convention), str(error).split("\n")[0]))
            continue
        if refused is None:
            candidates.append(_judge(binding))
        else:
            rejections.append(Rejection(str(convention), f"the model speaks {refused}"))
    candidates.sort(key=lambda one: (one.words, one.name))
    candidates.sort(key=lambda one: one.rank, reverse=True)
    return Detection(tuple(_with_twins(candidates)), tuple(rejections), refused)


def _with_twins(candidates: Sequence[Candidate]) -> Iterable[Candidate]:
    """Yields the candidates with the names of those that read the model as they do."""
    readings = [_reading(one.binding) for one in candidates]
    for one, reading in zip(candidates, readings, strict=True):
        twins = tuple(
            other.name
            for other, same in zip(candidates, readings, strict=True)
            if other is not one and same == reading and is_kin(one.binding.convention, other.binding.convention)
        )
        verb = "reads" if len(twins) == 1 else "read"
        reasons = (*one.reasons, f"{' and '.join(twins)} {verb} it the same way") if twins else one.reasons
        yield replace(one, twins=twins, reasons=reasons)


def _reading(binding: Binding) -> set[tuple[bool, str, str, tuple[tuple[str, int], ...]]]:
    """Returns what a convention takes each port for: the layout of a tensor, and which part of a cache it is."""
    sides = [
        (is_past, cache.past if is_past else cache.present) for cache in binding.caches for is_past in (True, False)
    ]
    return {
        (is_past, tensor.port.name, str(tensor.spec.layout), tuple(sorted(tensor.labels.items())))
        for is_past, tensors in sides
        for tensor in tensors
    }


def _has_some_port(convention: Convention, signature: Signature) -> bool:
    required = [spec for cache in convention.caches if not cache.optional for spec in cache.past]
    return any(spec.template.match(port.name) is not None for spec in required for port in signature.inputs)


def _judge(binding: Binding) -> Candidate:
    convention = binding.convention
    reasons: list[str] = []
    score = ports = 0
    for cache in binding.caches:
        ports += len(cache.past) + len(cache.present)
        reasons += [f"{spec.template} is {spec.layout}" for spec in (*cache.spec.past, *cache.spec.present)]
    named = [*binding.inputs, *binding.outputs]
    score += len(named)
    if named:
        reasons.append(f"has its other ports {', '.join(named)}")
    wanted = [spec.name for spec in (*convention.inputs, *convention.outputs) if not spec.optional]
    lacking = [name for name in wanted if name not in named]
    if lacking:
        # Of a share, so that a convention does not lose because it says more.
        score -= math.ceil(4 * len(lacking) / len(wanted))
        reasons.append(f"but lacks its ports {', '.join(lacking)}")
    judged = [*_judge_order(binding), *_judge_dim_names(binding), *_judge_shared(binding), *_judge_metadata(binding)]
    judged += [(-4, f"but its cache `{name}` does not fit: {reason}") for name, reason in binding.misfits.items()]
    score += sum(weight for weight, _ in judged)
    conflicts = sum(weight < 0 for weight, _ in judged)
    reasons += [reason for _, reason in judged]
    return Candidate(binding, ports, score, conflicts, tuple(reasons))


def _judge_order(binding: Binding) -> Iterable[tuple[int, str]]:
    """Yields whether the tensors of the caches stand in the order that the convention asks for."""
    keys = binding.convention.cache_order
    sides = (
        (binding.signature.inputs, {cache.spec.name: cache.past for cache in binding.caches}),
        (binding.signature.outputs, {cache.spec.name: cache.present for cache in binding.caches}),
    )
    for ports, caches in sides:
        rows = {name: [(tensor.labels, tensor.port.name) for tensor in tensors] for name, tensors in caches.items()}
        wanted = [name for _, names in ordered_units(rows, keys) for name in names]
        known = set(wanted)
        if not keys or [port.name for port in ports if port.name in known] != wanted:
            return
    yield 1, f"its caches stand in order ({', '.join(keys)})"


def _judge_dim_names(binding: Binding) -> Iterable[tuple[int, str]]:
    agree = set()
    for cache in binding.caches:
        for tensor in (*cache.past, *cache.present):
            agree |= {name for axis, name in tensor.spec.dims.items() if tensor.sizes.get(axis) == name}
    if agree:
        yield len(agree), f"names its dims {', '.join(sorted(agree))}"


def _judge_shared(binding: Binding) -> Iterable[tuple[int, str]]:
    """Yields what axes tell that several caches have: they must be of one size."""
    for axis in SHARED:
        sizes = {cache.spec.name: cache.size(axis) for cache in binding.caches if axis in cache.spec.axes}
        known = {name: size for name, size in sizes.items() if size is not None}
        text = ", ".join(f"{name} {size}" for name, size in known.items())
        if len({size for size in known.values() if isinstance(size, int)}) > 1:
            yield -4, f"but its caches differ in {axis} ({text})"
        elif len(known) > 1 and len(set(known.values())) == 1:
            yield 2, f"its caches agree on {axis} ({text})"


def _judge_metadata(binding: Binding) -> Iterable[tuple[int, str]]:
    """Yields what the metadata says of sizes that dims say too."""
    known = binding.signature.numbers
    for key, expression in binding.convention.sizes.items():
        told = expression.value(known)
        found = {
            size
            for cache in binding.caches
            for axis in cache.spec.axes
            if key in (axis, f"{cache.spec.name}.{axis}") and isinstance(size := cache.size(axis), int)
        }
        if told is None or not found:
            continue
        if found == {told}:
            yield 1, f"metadata {expression} = {told} agrees with {key}"
        else:
            yield -3, f"but metadata says {expression} = {told}, and {key} is {', '.join(map(str, sorted(found)))}"
