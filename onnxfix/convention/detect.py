"""Which convention does a model speak? Candidates in order, each with its reasons."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from onnxfix.convention.binding import bind
from onnxfix.convention.candidate import Candidate, judge
from onnxfix.convention.convention import Convention
from onnxfix.convention.foreign import foreign_convention
from onnxfix.convention.load import library
from onnxfix.convention.matching import is_kin
from onnxfix.convention.prefix import behind_prefix
from onnxfix.convention.signature import Port, Signature
from onnxfix.convention.template import Template
from onnxfix.errors import DetectError

_DESCRIBE = (
    "describe its caches: --from 'PAST -> PRESENT: LAYOUT' (once a cache), or a TOML file; "
    "onnxfix inspect MODEL --propose begins one"
)
_FIRST_HALF = "it hands the caches out and takes none in: it only begins what another model goes on with"
_MOST_REASONS = 3
"""How many reasons an error tells why conventions do not fit."""


@dataclass(frozen=True)
class Rejection:
    """A convention of which the model has some cache ports, but that does not fit.

    Attributes:
        name: The convention's name.
        reason: Why it does not fit.
        ports: How many inputs and outputs are called like its caches.
    """

    name: str
    reason: str
    ports: int


@dataclass(frozen=True)
class Detection:
    """All conventions that fit, and those that nearly did.

    Attributes:
        candidates: Best first; of equally good ones, the one whose convention says least.
        rejections: With their reasons; first those of which the model has most ports.
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
        reasons = list(dict.fromkeys(one.reason for one in self.rejections))
        nearly = "".join(f"\n  not {self._rejected_for(reason)}: {reason}" for reason in reasons[:_MOST_REASONS])
        raise DetectError(f"the model speaks no known convention{nearly}", hint=_DESCRIBE)

    def _rejected_for(self, reason: str) -> str:
        return " and ".join(one.name for one in self.rejections if one.reason == reason)


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
    known = list(library().values() if conventions is None else conventions)
    for convention in known:
        try:
            binding = bind(convention, signature, sizes)
        except DetectError as error:
            if ports := _count_ports(convention, signature):
                rejections.append(Rejection(str(convention), str(error).split("\n")[0], ports))
            continue
        if refused is None:
            candidates.append(judge(binding))
        else:
            rejections.append(Rejection(str(convention), f"the model speaks {refused}", judge(binding).ports))
    if not candidates and refused is None:
        candidates += _behind_prefixes(known, signature, sizes)
    if not candidates and refused is None:
        rejections += _first_halves(known, signature)
    candidates.sort(key=lambda one: (one.words, one.name))
    candidates.sort(key=lambda one: one.rank, reverse=True)
    rejections.sort(key=lambda one: (-one.ports, one.name))
    return Detection(tuple(_with_twins(candidates)), tuple(rejections), refused)


def _behind_prefixes(
    conventions: Iterable[Convention], signature: Signature, sizes: Mapping[str, int] | None
) -> Iterable[Candidate]:
    for convention in conventions:
        if (found := behind_prefix(convention, signature)) is None:
            continue
        prefixed, prefix = found
        try:
            candidate = judge(bind(prefixed, signature, sizes))
        except DetectError:
            continue
        yield replace(candidate, reasons=(f"its ports have the prefix {prefix}", *candidate.reasons))


def _first_halves(conventions: Iterable[Convention], signature: Signature) -> Iterable[Rejection]:
    """Yields the conventions whose caches a model hands out, all of them, and takes none of them in.

    Decoders are exported in pairs: one that begins a stream (Optimum's `decoder_model.onnx`), and one that goes on.
    """
    outputs = Signature(signature.outputs, ())
    for convention in conventions:
        handed = tuple(replace(cache, past=cache.present, present=()) for cache in convention.caches if cache.present)
        if not handed or _count_ports(convention, signature):
            continue
        try:
            caches = bind(replace(convention, caches=handed, inputs=(), outputs=()), outputs).caches
        except DetectError:
            continue
        yield Rejection(str(convention), _FIRST_HALF, sum(len(cache.past) for cache in caches))


def _with_twins(candidates: Sequence[Candidate]) -> Iterable[Candidate]:
    """Yields the candidates with the names of those that read the model as they do."""
    readings = [one.reading for one in candidates]
    for one, reading in zip(candidates, readings, strict=True):
        twins = tuple(
            other.name
            for other, same in zip(candidates, readings, strict=True)
            if other is not one and same == reading and is_kin(one.binding.convention, other.binding.convention)
        )
        verb = "reads" if len(twins) == 1 else "read"
        reasons = (*one.reasons, f"{' and '.join(twins)} {verb} it the same way") if twins else one.reasons
        yield replace(one, twins=twins, reasons=reasons)


def _count_ports(convention: Convention, signature: Signature) -> int:
    """Returns how many ports are called like caches that the convention demands; 0 if no input is."""
    demanded = [cache for cache in convention.caches if not cache.optional]
    inputs = _count_called([spec.template for cache in demanded for spec in cache.past], signature.inputs)
    return inputs and inputs + _count_called(
        [spec.template for cache in demanded for spec in cache.present], signature.outputs
    )


def _count_called(templates: Sequence[Template], ports: Iterable[Port]) -> int:
    return sum(any(template.match(port.name) is not None for template in templates) for port in ports)
