"""Which conventions a convention converts to, as far as their sentences alone tell."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from onnxfix.convention.binding import bind
from onnxfix.convention.convention import Convention
from onnxfix.convention.load import library
from onnxfix.convention.matching import is_kin
from onnxfix.convention.plan import make_plan
from onnxfix.convention.sketch import SIZES, signature_of
from onnxfix.convention.template import LABELS
from onnxfix.errors import OnnxfixError


@dataclass(frozen=True)
class Reach:
    """Whether a model of one convention becomes one of another.

    Attributes:
        target: The name of the other one.
        units: The axes that only one of the two has; a model converts where these are of size 1.
        read: The caches that a model must not hand out to convert, but only take.
        obstacle: Why no model converts; empty where one does.
    """

    target: str
    units: tuple[str, ...] = ()
    read: tuple[str, ...] = ()
    obstacle: str = ""

    def __str__(self) -> str:
        conditions = [f"{_listed(self.units)} 1"] if self.units else []
        conditions += [f"{_listed(self.read)} only read"] if self.read else []
        return f"{self.target} (where {' and '.join(conditions)})" if conditions else self.target


def _listed(names: tuple[str, ...]) -> str:
    return f"{' and '.join(names)} {'is' if len(names) == 1 else 'are'}"


def reaches(source: Convention) -> tuple[Reach, ...]:
    """Returns, for each other convention of the library that is of the same kind, whether `source` becomes it.

    What is of another kind is left out, and so is everything where `source` is refused.
    """
    if source.refused:
        return ()
    others = (one for one in library().values() if one.name != source.name and is_kin(source, one))
    return tuple(reach(source, one) for one in others)


def reach(source: Convention, target: Convention) -> Reach:
    """Returns whether a model that speaks `source` and nothing but that becomes one that speaks `target`.

    The model has batch 1, and size 1 in every axis that only one side has; its own sizes may still refuse. Caches that
    it need not hand out it hands out, if that leads to the target.
    """
    whole = _reach(source, target)
    read = tuple(cache.name for cache in source.caches if cache.present_optional)
    if not (whole.obstacle and read):
        return whole
    caches = tuple(replace(cache, present=() if cache.name in read else cache.present) for cache in source.caches)
    less = _reach(replace(source, caches=caches), target)
    return whole if less.obstacle else replace(less, read=read)


def _reach(source: Convention, target: Convention) -> Reach:
    sizes, units = _common_sizes(source, target)
    without = [cache.name for cache in source.caches if cache.optional and target.cache(cache.name) is None]
    told = {
        f"{cache.name}.{axis}": sizes[axis]
        for cache in source.caches
        for axis in sorted(cache.axes & sizes.keys())
        if cache.name not in without
    }
    try:
        binding = bind(source, signature_of(source, sizes, without=without), told)
        make_plan(binding, target)
    except OnnxfixError as error:
        return Reach(target.name, obstacle=error.message)
    return Reach(target.name, units)


def obstacles(found: Iterable[Reach]) -> dict[str, list[str]]:
    """Returns the conventions that are out of reach, by what stands in the way."""
    grouped: dict[str, list[str]] = {}
    for one in found:
        if one.obstacle:
            grouped.setdefault(one.obstacle, []).append(one.target)
    return grouped


def _common_sizes(one: Convention, other: Convention) -> tuple[Mapping[str, int], tuple[str, ...]]:
    """Returns sizes that both can say, and the axes that must be of size 1 for that."""
    sizes = {axis: size for axis, size in SIZES.items() if isinstance(size, int)}
    units: set[str] = set()
    for cache in one.caches:
        partner = other.cache(cache.name)
        units |= (cache.axes ^ partner.axes) - LABELS.keys() if partner else set()
    sizes |= dict.fromkeys(units, 1)
    for cache in (*one.caches, *other.caches):
        for axis in cache.past[0].template.fixed.keys() - LABELS.keys():
            sizes[axis] = len({spec.template.fixed[axis] for spec in cache.past})
    return sizes, tuple(sorted(axis for axis in units if sizes[axis] == 1))
