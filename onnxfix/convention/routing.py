"""Finds, for every cache of a model, the cache of the target convention that it becomes, and the route there."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from onnxfix.convention.binding import Binding, BoundCache, BoundTensor, bind
from onnxfix.convention.convention import CacheSpec, Convention, TensorSpec
from onnxfix.convention.layout import Layout
from onnxfix.convention.route import Block, Labels, Rearrange, Route, Split, Stack, Step, holds
from onnxfix.convention.signature import Dim
from onnxfix.convention.template import LABELS, label_text
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
        PlanError: A cache of the target is missing, or no cache of the model fits it.
    """
    if target is None:
        return [Match(cache, None) for cache in binding.caches]
    found: dict[str, CacheSpec] = {}
    left = list(target.caches)
    tests = (
        lambda cache, spec: cache.spec.name == spec.name and _differ_in_units(cache, spec),
        lambda cache, spec: cache.spec.axes == spec.axes,
        _differ_in_units,
    )
    for test in tests:
        for cache, spec in itertools.product(binding.caches, tuple(left)):
            if cache.spec.name not in found and spec in left and test(cache, spec):
                found[cache.spec.name] = spec
                left.remove(spec)
    for spec in left:
        if not spec.optional and not _is_there(binding, target, spec):
            raise _unmatched(binding, spec, found)
    if not found:
        raise PlanError(f"no cache of the model fits `{target}`")
    return [Match(cache, found.get(cache.spec.name)) for cache in binding.caches]


def _differ_in_units(cache: BoundCache, spec: CacheSpec) -> bool:
    """Whether the axes are the same but for axes of size 1 (or, in the model, of a size that may be frozen to 1)."""
    missing = cache.spec.axes - spec.axes
    return all(not isinstance(size := cache.size(axis), int) or size == 1 for axis in missing) and bool(
        len(cache.spec.axes & spec.axes) > len(missing) and not (spec.axes - cache.spec.axes) & set(LABELS)
    )


def _is_there(binding: Binding, target: Convention, spec: CacheSpec) -> bool:
    alone = Convention(target.name, "", "", (spec,), sizes=target.sizes)
    try:
        bind(alone, binding.signature, binding.sizes)
    except DetectError:
        return False
    return True


def _unmatched(binding: Binding, spec: CacheSpec, found: Mapping[str, CacheSpec]) -> PlanError:
    free = [cache for cache in binding.caches if cache.spec.name not in found]
    message = f"the target's cache `{spec.name}` ({', '.join(sorted(spec.axes))}) has no counterpart in the model"
    if not free:
        return PlanError(message)
    odd = [
        f"`{cache.spec.name}` has {_axes(cache.spec.axes - spec.axes)} more, {_axes(spec.axes - cache.spec.axes)} less"
        for cache in free
    ]
    return PlanError(
        f"{message}: {'; '.join(odd)}", hint="both sides must name the same axes; an axis of size 1 may be left out"
    )


def _axes(axes: Iterable[str]) -> str:
    return ", ".join(f"`{axis}`" for axis in sorted(axes)) or "no axis"


def make_routes(match: Match, binding: Binding) -> tuple[Route, Route | None]:
    """Returns the routes of the past and of the present for one cache.

    Raises:
        PlanError: A size is unknown, does not divide, or differs where it must be equal; a label is missing.
    """
    cache, spec = match.source, match.target
    if spec is None or spec == cache.spec:
        past = _keep(cache.past)
        return past, _keep(cache.present) if cache.present else None
    if cache.spec.update and spec.update and cache.spec.update != spec.update:
        message = (
            f"the cache `{cache.spec.name}` is updated by `{cache.spec.update}`, the target asks for `{spec.update}`"
        )
        raise PlanError(message, hint="another update rule is another network; onnxfix only moves what is there")
    if bool(cache.present) != bool(spec.present):
        side = "source" if cache.present else "target"
        raise PlanError(
            f"the cache `{cache.spec.name}` has outputs in the {side} only",
            hint="write PAST -> PRESENT: LAYOUT on both sides",
        )
    past = _Router(cache, cache.past, spec.past, binding).route()
    return past, _Router(cache, cache.present, spec.present, binding).route() if cache.present else None


def _keep(tensors: Sequence[BoundTensor]) -> Route:
    blocks = tuple(
        Block(tensor.port.name, tuple(sorted(tensor.labels.items())), tensor.spec.layout, tensor.port.dims or ())
        for tensor in tensors
    )
    return Route(blocks, blocks, (), {})


class _Router:
    """Makes the route for one side (past or present) of one cache."""

    def __init__(
        self, cache: BoundCache, tensors: Sequence[BoundTensor], targets: Sequence[TensorSpec], binding: Binding
    ) -> None:
        self.cache = cache
        self.tensors = tensors
        self.targets = targets
        self.binding = binding
        self.source_axes = tensors[0].spec.axes
        self.target_axes = targets[0].axes
        self.source_spread = set(tensors[0].spec.template.axes)
        self.target_spread = set(targets[0].template.axes)
        self.labels = {axis: self._labels(axis) for axis in sorted(self.source_spread | self.target_spread)}

    def route(self) -> Route:
        self._check_units()
        held = {self._key(tensor.labels): (tensor.spec.layout, dict(tensor.sizes)) for tensor in self.tensors}
        source = tuple(
            Block(
                tensor.port.name,
                self._key(tensor.labels),
                tensor.spec.layout,
                tensor.port.dims or (None,) * tensor.spec.layout.rank,
            )
            for tensor in self.tensors
        )
        steps: list[Step] = []
        todo: tuple[Step, ...] = (*self._splits(), *self._rearranges(), *self._stacks())
        for step in todo:
            held = self._check(step, held)
            steps.append(step)
        target = tuple(self._block(spec, labels, held) for spec in self.targets for labels in self._grid(spec))
        return Route(source, target, tuple(steps), self._group_sizes())

    def _labels(self, axis: str) -> tuple[int, ...]:
        """Returns all labels that an axis has in the model."""
        if axis in self.source_spread:
            labels = self.cache.labels[axis]
            if axis in self.target_axes and axis not in self.target_spread and labels != tuple(range(len(labels))):
                gap = min(set(range(labels[-1] + 1)) - set(labels))
                there = ", ".join(map(str, labels))
                message = f"{axis} {gap} of the cache `{self.cache.spec.name}` is missing (there are {there})"
                raise PlanError(f"{message}: stacking would renumber the others")
            return labels
        if axis not in self.source_axes:
            return (0,)
        sizes = {tensor.sizes[axis] for tensor in self.tensors}
        size = sizes.pop() if len(sizes) == 1 else None
        size = size if isinstance(size, int) else self.cache.size(axis)
        if not isinstance(size, int):
            layout = self.tensors[0].spec.layout
            raise PlanError(
                f"the size of `{axis}` in `{layout}` is not known",
                where=self.tensors[0].port.name,
                hint=f"say it: --size {axis}=N",
            )
        if size < 1:
            raise PlanError(f"`{axis}` has size {size}: nothing to spread over names", where=self.tensors[0].port.name)
        return tuple(range(size))

    def _check_units(self) -> None:
        """An axis that one side lacks must be of size 1."""
        for axis in sorted(self.source_axes - self.target_axes):
            sizes: set[Dim] = (
                {len(self.labels[axis])}
                if axis in self.source_spread
                else {tensor.sizes[axis] for tensor in self.tensors}
            )
            for size in sizes - {1}:
                hint = (
                    f"freeze it: --set-dim {size}=1"
                    if isinstance(size, str)
                    else f"name `{axis}` in the target's layout"
                )
                shown = "an unknown size" if size is None else f"size {size}"
                raise PlanError(
                    f"the target has no axis `{axis}`, which has {shown} and not 1",
                    where=self.tensors[0].port.name,
                    hint=hint,
                )
        for axis in sorted(self.target_axes - self.source_axes):
            if axis in LABELS:
                raise PlanError(f"the target has an axis `{axis}`, the cache `{self.cache.spec.name}` has none")

    def _key(self, labels: Mapping[str, int]) -> Labels:
        """Labels without axes that the other side lacks: these have one label, which says nothing."""
        common = self.source_axes & self.target_axes
        return tuple(sorted((axis, label) for axis, label in labels.items() if axis in common))

    def _grid(self, spec: TensorSpec) -> list[dict[str, int]]:
        fixed = spec.template.fixed
        values = [(fixed[axis],) if axis in fixed else self.labels[axis] for axis in spec.template.axes]
        return [dict(zip(spec.template.axes, labels, strict=True)) for labels in itertools.product(*values)]

    def _families(self) -> list[tuple[Labels, TensorSpec]]:
        specs = dict.fromkeys((tensor.spec.template.text, tensor.spec.layout) for tensor in self.tensors)
        by_text = {(tensor.spec.template.text, tensor.spec.layout): tensor.spec for tensor in self.tensors}
        return [(self._key(by_text[key].template.fixed), by_text[key]) for key in specs]

    def _splits(self) -> Iterable[Split]:
        """Splits the slow axes first, so that later splits have less to move."""
        for where, spec in self._families():
            layout = spec.layout
            for axis in [axis for axis in layout.axes if axis in self.target_spread]:
                yield Split(where, axis, self.labels[axis], layout)
                layout = layout.without(axis)

    def _rearranges(self) -> Iterable[Rearrange]:
        for source_where, source in self._families():
            for spec in self.targets:
                where = tuple(sorted({**dict(source_where), **self._fixed(spec)}.items()))
                if any(dict(source_where).get(axis, label) != label for axis, label in self._fixed(spec).items()):
                    continue
                before, after = source.layout, spec.layout
                for axis in self.target_spread & set(before.axes):
                    before = before.without(axis)
                for axis in self.source_spread & set(after.axes):
                    after = after.without(axis)
                if before != after:
                    yield Rearrange(where, before, after)

    def _fixed(self, spec: TensorSpec) -> dict[str, int]:
        return dict(self._key(spec.template.fixed))

    def _stacks(self) -> Iterable[Stack]:
        """Stacks the fast axes first: the small tensors come together before the large ones."""
        for spec in self.targets:
            layouts = [spec.layout]
            axes = [axis for axis in spec.layout.axes if axis in self.source_spread]
            for axis in axes:
                layouts.append(layouts[-1].without(axis))
            for axis, after in reversed(list(zip(axes, layouts, strict=False))):
                yield Stack(tuple(sorted(self._fixed(spec).items())), axis, self.labels[axis], after)

    def _check(
        self, step: Step, held: dict[Labels, tuple[Layout, dict[str, Dim]]]
    ) -> dict[Labels, tuple[Layout, dict[str, Dim]]]:
        """Follows the sizes through a step, so that what cannot be done is told before the graph is touched."""
        after: dict[Labels, tuple[Layout, dict[str, Dim]]] = {}
        for labels, (layout, sizes) in held.items():
            if not holds(labels, step.where):
                after[labels] = (layout, sizes)
            elif isinstance(step, Split):
                for label in step.labels:
                    after[tuple(sorted((*labels, (step.axis, label))))] = (step.after, sizes)
            elif isinstance(step, Stack):
                rest = tuple(entry for entry in labels if entry[0] != step.axis)
                if rest in after:
                    self._check_equal(step, labels, sizes, after[rest][1])
                after.setdefault(rest, (step.after, {**sizes, step.axis: len(step.labels)}))
            else:
                after[labels] = (step.after, {**dict.fromkeys(step.after.axes, 1), **sizes})
        return after

    def _check_equal(self, step: Stack, labels: Labels, sizes: Mapping[str, Dim], first: Mapping[str, Dim]) -> None:
        for axis in step.before.axes:
            one, other = sizes.get(axis, 1), first.get(axis, 1)
            if isinstance(one, int) and isinstance(other, int) and one != other:
                text = ", ".join(f"{name} {label_text(name, label)}" for name, label in labels)
                message = f"`{axis}` of the cache `{self.cache.spec.name}` has size {other} in the first tensor"
                raise PlanError(f"{message} and {one} for {text}: they cannot be stacked along `{step.axis}`")

    def _block(
        self, spec: TensorSpec, labels: Mapping[str, int], held: Mapping[Labels, tuple[Layout, dict[str, Dim]]]
    ) -> Block:
        key = self._key(labels)
        sizes = held[key][1]
        dims: list[Dim] = []
        for item in spec.layout.items:
            factors = [sizes.get(axis, 1) for axis in item]
            ints = [factor for factor in factors if isinstance(factor, int)]
            name = spec.dims.get(item[0] if len(item) == 1 else f"({' '.join(item)})")
            if len(ints) == len(factors):
                dims.append(math.prod(ints))
            else:
                dims.append(name or (factors[0] if len(factors) == 1 else None))
        return Block(spec.template.format(labels), key, spec.layout, tuple(dims))

    def _group_sizes(self) -> dict[str, int]:
        """The sizes that a tensor's dims do not tell: those of axes in groups, where all tensors agree."""
        layouts = [*(tensor.spec.layout for tensor in self.tensors), *(spec.layout for spec in self.targets)]
        grouped = {axis for layout in layouts for item in layout.items if len(item) > 1 for axis in item}
        found: dict[str, int] = {}
        for axis in sorted(grouped):
            sizes = {tensor.sizes.get(axis) for tensor in self.tensors if axis in tensor.sizes}
            if axis in self.labels:
                found[axis] = len(self.labels[axis])
            elif len(sizes) == 1 and isinstance(size := next(iter(sizes)), int):
                found[axis] = size
        return found
