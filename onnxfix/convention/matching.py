"""Finds, for every cache of a model, the cache of the target convention that it becomes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from onnxfix.convention.binding import Binding, BoundCache, bind
from onnxfix.convention.convention import CacheSpec, Convention
from onnxfix.convention.template import LABELS
from onnxfix.errors import DetectError, PlanError


@dataclass(frozen=True)
class Match:
    """A cache of the model and what it becomes; `target` is None where the cache stays as it is."""

    source: BoundCache
    target: CacheSpec | None


def match_caches(binding: Binding, target: Convention | None) -> list[Match]:
    """Returns a match for every cache of the model, in the order of the source's convention.

    Caches meet by name, then by equal axes, then by axes that are equal but for axes of size 1. A cache that the target
    does not know stays as it is; one that only the target knows must already be there in the target's form.

    Raises:
        PlanError: The conventions are of different families, a cache of the target is missing, or several caches of the
            model fit it equally well.
    """
    if target is None:
        return [Match(cache, None) for cache in binding.caches]
    source = binding.convention
    if not is_kin(source, target):
        message = f"`{source}` ({source.family}) and `{target}` ({target.family}) are for different kinds of network"
        hint = "if their caches are the same all the same, describe those to reach: --to 'PAST -> PRESENT: LAYOUT'"
        raise PlanError(message, hint=hint)
    pairs = _Pairs(binding.caches, target.caches)
    pairs.add(lambda cache, spec: cache.spec.name == spec.name and _differ_in_units(cache, spec))
    pairs.add(lambda cache, spec: cache.spec.axes == spec.axes)
    pairs.add(lambda cache, spec: _is_alike(cache, spec) and _differ_in_units(cache, spec))
    for spec in pairs.specs:
        if not spec.optional and not _is_there(binding, target, spec):
            raise _unmatched(spec, pairs.caches)
    if not pairs.found:
        raise PlanError(f"no cache of the model fits `{target}`")
    return [Match(cache, pairs.found.get(cache.spec.name)) for cache in binding.caches]


def is_kin(one: Convention, other: Convention) -> bool:
    """Whether two conventions are of one family, one family lies within the other, or one of them has none.

    Equal axes mean little across families: the convolution of one network is not the memory of another.
    """
    shared = zip(one.family.split("/"), other.family.split("/"), strict=False)
    return not (one.family and other.family) or all(mine == its for mine, its in shared)


class _Pairs:
    """Caches of both sides that have found each other, and those that have not yet."""

    def __init__(self, caches: Iterable[BoundCache], specs: Iterable[CacheSpec]) -> None:
        self.caches = list(caches)
        self.specs = list(specs)
        self.found: dict[str, CacheSpec] = {}

    def add(self, fits: Callable[[BoundCache, CacheSpec], bool]) -> None:
        """Pairs what fits; where several fit each other, in their order, if there are equally many on both sides."""
        for spec in list(self.specs):
            caches = [cache for cache in self.caches if fits(cache, spec)]
            if not caches or spec not in self.specs:
                continue
            rivals = [one for one in self.specs if fits(caches[0], one)]
            if len(caches) > len(rivals):
                names = " or ".join(f"`{cache.spec.name}`" for cache in caches)
                raise PlanError(
                    f"the target's cache `{spec.name}` could be {names}",
                    hint="say which: --from with the sentences of the caches to convert, in the order of --to",
                )
            for cache, one in zip(caches, rivals, strict=False):
                self.found[cache.spec.name] = one
                self.caches.remove(cache)
                self.specs.remove(one)


def _is_alike(cache: BoundCache, spec: CacheSpec) -> bool:
    """Whether more axes are the same than differ: a mask over batch and time is no convolution cache."""
    return len(cache.spec.axes & spec.axes) > len(cache.spec.axes ^ spec.axes)


def _differ_in_units(cache: BoundCache, spec: CacheSpec) -> bool:
    """Whether the axes are the same but for axes of size 1 (or, in the model, of a size that may be frozen to 1)."""
    missing, extra = cache.spec.axes - spec.axes, spec.axes - cache.spec.axes
    sizes = [cache.size(axis) for axis in missing]
    return not extra & LABELS.keys() and all(not isinstance(size, int) or size == 1 for size in sizes)


def _is_there(binding: Binding, target: Convention, spec: CacheSpec) -> bool:
    alone = replace(target, caches=(spec,), inputs=(), outputs=())
    try:
        bind(alone, binding.signature, binding.sizes)
    except DetectError:
        return False
    return True


def _unmatched(spec: CacheSpec, free: Iterable[BoundCache]) -> PlanError:
    message = f"the target's cache `{spec.name}` ({', '.join(sorted(spec.axes))}) has no counterpart in the model"
    odd = []
    for cache in free:
        more, less = cache.spec.axes - spec.axes, spec.axes - cache.spec.axes
        sizes = [f"`{axis}`" + _size(cache, axis) for axis in sorted(more)]
        words = [f"has also {', '.join(sizes)}"] if sizes else []
        words += [f"has no {', '.join(f'`{axis}`' for axis in sorted(less))}"] if less else []
        odd.append(f"`{cache.spec.name}` {' and '.join(words)}")
    hint = "both sides must name the same axes; an axis of size 1 may be left out"
    return PlanError(f"{message}: {'; '.join(odd)}" if odd else message, hint=hint if odd else "")


def _size(cache: BoundCache, axis: str) -> str:
    size = cache.size(axis)
    return "" if size is None else f" ({size})"
