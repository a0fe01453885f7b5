"""Makes the routes of a cache: from the tensors that a model has to those that the target wants."""

from __future__ import annotations

import itertools
import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from functools import partial

from onnxfix.convention.binding import VARYING, Binding, BoundCache, BoundTensor, size_of
from onnxfix.convention.convention import CacheSpec, TensorSpec
from onnxfix.convention.layout import Layout, show_item
from onnxfix.convention.matching import Match
from onnxfix.convention.route import (
    Block,
    Labels,
    Rearrange,
    Route,
    Split,
    Stack,
    Step,
    fuse,
    walk_split,
    walk_stack,
)
from onnxfix.convention.signature import Dim
from onnxfix.convention.template import LABELS, label_text
from onnxfix.errors import PlanError

MAX_TENSORS = 2**16
"""More ports than any model has: an axis of this size is no axis to spread over names."""
_MAX_DIM = 2**63 - 1

_Sizes = Mapping[str, Dim]


def make_routes(match: Match, binding: Binding) -> tuple[Route, Route | None]:
    """Returns the routes of the past and of the present for one cache.

    Raises:
        PlanError: A size is unknown, does not divide, or differs where it must be equal; a label is missing.
    """
    cache, spec = match.source, match.target
    if spec is None or spec == cache.spec:
        return _keep(cache.past), _keep(cache.present) if cache.present else None
    if cache.present and cache.spec.update and spec.update and cache.spec.update != spec.update:
        message = f"the cache `{cache.spec.name}` is updated by `{cache.spec.update}`"
        hint = "another update rule is another network; onnxfix only moves what is there"
        raise PlanError(f"{message}, the target asks for `{spec.update}`", hint=hint)
    if bool(cache.present) != bool(spec.present) and (cache.present or not spec.present_optional):
        side = "source" if cache.present else "target"
        hint = "write PAST -> PRESENT: LAYOUT on both sides"
        if cache.present and cache.spec.present_optional:
            hint = "take the file that only reads it: a decoder with past, not merged with one without"
        raise PlanError(f"the cache `{cache.spec.name}` has outputs in the {side} only", hint=hint)
    router = _Router(cache, cache.past, spec.past, binding.sizes)
    past = router.route()
    # The graph goes on with the source's past, which it makes of the target's.
    router.require_known(past.inverse().steps, past.target[0].name)
    if not cache.present:
        return past, None
    return past, _Router(cache, cache.present, spec.present, binding.sizes, _own_names(cache, spec)).route()


def _own_names(cache: BoundCache, target: CacheSpec) -> frozenset[str]:
    """Returns the axes whose size in the present keeps the name that the source has for it.

    Where the target has one name for the time of past and present, it speaks of a window. A cache that grows has two
    lengths, and one name for both would be wrong.
    """
    names = [{name for one in side if (name := one.dims.get("time"))} for side in (target.past, target.present)]
    lengths = [{tensor.sizes.get("time") for tensor in side} for side in (cache.past, cache.present)]
    return frozenset({"time"} if names[0] & names[1] and not lengths[0] & lengths[1] else ())


def _keep(tensors: Sequence[BoundTensor]) -> Route:
    blocks = tuple(_block(tensor, tuple(sorted(tensor.labels.items()))) for tensor in tensors)
    return Route(blocks, blocks, (), {})


def _block(tensor: BoundTensor, labels: Labels) -> Block:
    layout = tensor.spec.layout
    dims = tensor.port.dims if tensor.port.dims is not None else (None,) * layout.rank
    return Block(tensor.port.name, labels, layout, dims)


class _Router:
    """Makes the route for one side (past or present) of one cache.

    Axes that the target spreads over names are split off, what is left is rearranged, and axes that only the source
    spreads are stacked. Sizes go along through every step, so that what cannot be done is told before the graph is
    touched.
    """

    def __init__(
        self,
        cache: BoundCache,
        tensors: Sequence[BoundTensor],
        targets: Sequence[TensorSpec],
        given: Mapping[str, int],
        own_names: frozenset[str] = frozenset(),
    ) -> None:
        self.own_names = own_names
        self.cache = cache
        self.tensors = tensors
        self.targets = targets
        self.given = given
        self.where = tensors[0].port.name
        self.source_axes, self.target_axes = tensors[0].spec.axes, targets[0].axes
        self.source_spread = set(tensors[0].spec.template.axes)
        self.target_spread = set(targets[0].template.axes)

    def route(self) -> Route:
        self._check_units()
        self.labels = {axis: self._labels(axis) for axis in sorted(self.source_spread | self.target_spread)}
        self.sizes = self._group_sizes()
        steps: tuple[Step, ...] = (*self._splits(), *self._rearranges(), *self._stacks())
        if steps:
            self._check_types()
        held: dict[Labels, _Sizes] = {self._key(tensor.labels): tensor.sizes for tensor in self.tensors}
        for step in steps:
            held = self._follow(step, held)
        source = tuple(_block(tensor, self._key(tensor.labels)) for tensor in self.tensors)
        target = tuple(self._target(spec, labels, held) for spec in self.targets for labels in self._grid(spec))
        self._check_all_taken(held, target)
        return Route(source, target, steps, self.sizes)

    # What can be told before any step.

    def _check_units(self) -> None:
        """An axis that one side lacks must be of size 1."""
        for axis in sorted(self.source_axes - self.target_axes):
            for size in [self._count(axis)] if axis in self.source_spread else self._sizes_of(axis):
                if size == 1:
                    continue
                hint = f"name `{axis}` in the target's layout"
                if isinstance(size, str):
                    hint = f"freeze it: --set-dim {shlex.quote(f'{size}=1')}"
                shown = "an unknown size" if size is None else f"size {size}"
                raise PlanError(
                    f"the target has no axis `{axis}`, which has {shown} and not 1", where=self.where, hint=hint
                )
        for axis in sorted(self.target_axes - self.source_axes):
            if axis in LABELS:
                raise PlanError(f"the target has an axis `{axis}`, the cache `{self.cache.spec.name}` has none")
            labels = sorted({spec.template.fixed[axis] for spec in self.targets if axis in spec.template.fixed})
            if len(labels) > 1:
                message = f"the target names {axis} {_shorten(labels)}, the cache `{self.cache.spec.name}` is one alone"
                raise PlanError(message, where=self.where)

    def _check_types(self) -> None:
        for tensor in self.tensors:
            if tensor.port.dtype == "undefined":
                hint = "export the model again, with the types of its inputs and outputs"
                raise PlanError(
                    "the file does not say of which element type this port is", where=tensor.port.name, hint=hint
                )
        types = sorted({tensor.port.dtype for tensor in self.tensors})
        if len(types) > 1:
            message = f"the tensors of the cache `{self.cache.spec.name}` have the element types {', '.join(types)}"
            raise PlanError(message, hint="they can be renamed, but not be put together or laid out anew")

    def _count(self, axis: str) -> int:
        return len({tensor.labels[axis] for tensor in self.tensors})

    def _sizes_of(self, axis: str) -> list[Dim]:
        return list(dict.fromkeys(tensor.sizes[axis] for tensor in self.tensors))

    def _size(self, axis: str) -> int | None:
        """Returns the size of an axis, if all tensors have the same."""
        sizes = self._sizes_of(axis)
        return sizes[0] if len(sizes) == 1 and isinstance(sizes[0], int) else None

    def _given_size(self, axis: str) -> int | None:
        """Returns the size that the user gave for an axis, if no tensor says another."""
        is_open = not any(isinstance(size, int) for size in self._sizes_of(axis))
        return size_of(self.given, self.cache.spec.name, axis) if is_open else None

    def _labels(self, axis: str) -> tuple[int, ...]:
        """Returns all labels that an axis has in the model."""
        if axis in self.source_spread:
            return self._labels_in_names(axis)
        if axis not in self.source_axes:
            return (0,)
        size = self._size(axis)
        size = self._given_size(axis) if size is None else size
        if size is None:
            message = f"the size of `{axis}` in `{self.tensors[0].spec.layout}` is not known"
            raise PlanError(message, where=self.where, hint=f"say it: --size {axis}=N")
        if not 1 <= size <= MAX_TENSORS:
            raise PlanError(f"`{axis}` has size {size} and cannot be spread over names", where=self.where)
        return tuple(range(size))

    def _labels_in_names(self, axis: str) -> tuple[int, ...]:
        labels = tuple(sorted({tensor.labels[axis] for tensor in self.tensors}))
        is_stacked = axis in self.target_axes and axis not in self.target_spread
        gap = next((index for index, label in enumerate(labels) if index != label), None)
        if is_stacked and gap is not None:
            message = f"{axis} {gap} of the cache `{self.cache.spec.name}` is missing (there are {_shorten(labels)})"
            raise PlanError(f"{message}: stacking would renumber the others", where=self.where)
        return labels

    def _group_sizes(self) -> dict[str, int]:
        """Returns the sizes that a tensor's dims do not tell: those of axes in groups, where all tensors agree."""
        layouts = [*(layout for _, layout in self._families()), *(spec.layout for spec in self.targets)]
        groups = [item for layout in layouts for item in layout.items if len(item) > 1]
        found: dict[str, int] = {}
        for axis in sorted({axis for group in groups for axis in group}):
            if axis in self.labels:
                found[axis] = len(self.labels[axis])
            elif axis not in self.source_axes:
                found[axis] = 1
            elif (size := self._size(axis)) is not None:
                found[axis] = size
        # What the user gave may be true of one call only: it is taken where nothing else helps.
        for group in groups:
            for axis in sorted(group, key=VARYING.__contains__):
                is_one_of_many = axis not in found and len([one for one in group if one not in found]) > 1
                if is_one_of_many and (given := self._given_size(axis)) is not None:
                    found[axis] = given
        return found

    def _key(self, labels: Mapping[str, int]) -> Labels:
        """Returns labels without axes that the other side lacks: these have one label, which says nothing."""
        common = self.source_axes & self.target_axes
        return tuple(sorted((axis, label) for axis, label in labels.items() if axis in common))

    # The steps.

    def _families(self) -> list[tuple[Labels, Layout]]:
        """Returns the labels that the source's sentences fix, each with the layout of the tensors it holds for."""
        return list(dict.fromkeys((self._key(one.spec.template.fixed), one.spec.layout) for one in self.tensors))

    def _splits(self) -> Iterable[Split]:
        """Splits the slow axes first, so that later splits have less to move."""
        for where, layout in self._families():
            rest = layout
            for axis in [axis for axis in layout.axes if axis in self.target_spread]:
                yield Split(where, axis, self.labels[axis], rest)
                rest = rest.without(axis)

    def _rearranges(self) -> Iterable[Rearrange]:
        for where, layout in self._families():
            for spec in self.targets:
                fixed = dict(self._key(spec.template.fixed))
                if any(fixed.get(axis, label) != label for axis, label in where):
                    continue
                before, after = layout, spec.layout
                for axis in sorted(self.target_spread & set(before.axes)):
                    before = before.without(axis)
                for axis in sorted(self.source_spread & set(after.axes)):
                    after = after.without(axis)
                if before != after:
                    yield Rearrange(tuple(sorted({**dict(where), **fixed}.items())), before, after)

    def _stacks(self) -> Iterable[Stack]:
        """Stacks the fast axes first: the small tensors come together before the large ones."""
        for spec in self.targets:
            axes = [axis for axis in spec.layout.axes if axis in self.source_spread]
            layouts = [spec.layout]
            for axis in axes:
                layouts.append(layouts[-1].without(axis))
            for axis, after in reversed(list(zip(axes, layouts, strict=False))):
                yield Stack(self._key(spec.template.fixed), axis, self.labels[axis], after)

    # The sizes along the steps.

    def _follow(self, step: Step, held: Mapping[Labels, _Sizes]) -> dict[Labels, _Sizes]:
        self.require_known((step,), self.where)
        if isinstance(step, Split):
            return walk_split(step, held, lambda sizes, _: sizes)
        if isinstance(step, Stack):
            return walk_stack(step, held, partial(self._stacked, step))
        return dict(held)

    def require_known(self, steps: Iterable[Step], where: str) -> None:
        """Checks that in every group that is taken apart the size of one axis at most stays open.

        Raises:
            PlanError: More are open, or differ from tensor to tensor.
        """
        for step in steps:
            for group in self._taken_apart(step):
                unknown = [axis for axis in group if axis not in self.sizes]
                if len(unknown) < 2:
                    continue
                names = " and ".join(f"`{axis}`" for axis in unknown)
                uneven = [axis for axis in unknown if axis in self.source_axes and len(self._sizes_of(axis)) > 1]
                if uneven:
                    message = f"the size of `{uneven[0]}` of the cache `{self.cache.spec.name}` differs"
                    hint = f"leave it a dimension of its own, instead of `{step.before}`"
                    raise PlanError(f"{message} from tensor to tensor: {names} cannot be one", where=where, hint=hint)
                # Best one that never varies, and rather the batch than what grows from call to call.
                told = min(unknown, key=lambda axis: ("(" in axis, axis in VARYING, axis == "time"))
                message = f"the sizes of {names} in `{step.before}` are not known"
                raise PlanError(message, where=where, hint=f"say one: --size {told}=N")

    def _taken_apart(self, step: Step) -> list[tuple[str, ...]]:
        """Returns the groups that a step takes apart, without the axis that it splits off."""
        if isinstance(step, Split):
            index, _ = step.before.place(step.axis)
            return [tuple(axis for axis in step.before.items[index] if axis != step.axis)]
        before, _ = fuse(step.front if isinstance(step, Stack) else step.before, step.after, self.sizes.keys())
        return [item for item in before.items if len(item) > 1]

    def _stacked(self, step: Stack, parts: list[_Sizes]) -> _Sizes:
        for axis in step.before.axes:
            by_label = {label: part.get(axis, 1) for label, part in zip(step.labels, parts, strict=True)}
            if len({size for size in by_label.values() if isinstance(size, int)}) > 1:
                shown = _shorten(f"{size} for {_label(step.axis, label)}" for label, size in by_label.items())
                message = f"the size of `{axis}` of the cache `{self.cache.spec.name}` differs ({shown})"
                raise PlanError(f"{message}: it cannot be stacked along `{step.axis}`", where=self.where)
        return {**parts[0], step.axis: len(parts)}

    # The target's tensors.

    def _grid(self, spec: TensorSpec) -> list[dict[str, int]]:
        """Returns the labels of all tensors that a sentence of the target stands for, in the order of its name."""
        for hole in spec.template.holes:
            labels = self.labels[hole.axis]
            if hole.label is None and hole.spellings and labels[-1] >= len(hole.spellings):
                message = f"`{spec.template}` has no spelling for {_label(hole.axis, labels[-1])}"
                raise PlanError(f"{message} of the cache `{self.cache.spec.name}`")
        fixed = spec.template.fixed
        values = [(fixed[axis],) if axis in fixed else self.labels[axis] for axis in spec.template.axes]
        if math.prod(map(len, values)) > MAX_TENSORS:
            raise PlanError(f"`{spec}` would be {math.prod(map(len, values))} tensors")
        return [dict(zip(spec.template.axes, labels, strict=True)) for labels in itertools.product(*values)]

    def _target(self, spec: TensorSpec, labels: Mapping[str, int], held: Mapping[Labels, _Sizes]) -> Block:
        key = self._key(labels)
        if key not in held:
            missing = ", ".join(_label(axis, label) for axis, label in key)
            raise PlanError(f"the cache `{self.cache.spec.name}` has no {missing}, which `{spec.template}` names")
        name = spec.template.format(labels)
        return Block(name, key, spec.layout, tuple(self._dim(item, spec, held[key]) for item in spec.layout.items))

    def _dim(self, item: tuple[str, ...], spec: TensorSpec, sizes: _Sizes) -> Dim:
        factors = [sizes.get(axis, 1) for axis in item]
        ints = [factor for factor in factors if isinstance(factor, int)]
        if len(ints) < len(factors):
            shown = show_item(item)
            name = None if shown in self.own_names else spec.dims.get(shown)
            return name or (factors[0] if len(factors) == 1 else None)
        if math.prod(ints) > _MAX_DIM:
            raise PlanError(f"`{show_item(item)}` would have size {math.prod(ints)}", where=str(spec.template))
        return math.prod(ints)

    def _check_all_taken(self, held: Mapping[Labels, _Sizes], target: Sequence[Block]) -> None:
        taken = {block.labels for block in target}
        for labels in held:
            if labels not in taken:
                left = ", ".join(_label(axis, label) for axis, label in labels)
                names = " and ".join(f"`{spec.template}`" for spec in self.targets)
                raise PlanError(f"{names} leave out {left} of the cache `{self.cache.spec.name}`")


def _label(axis: str, label: int) -> str:
    return f"{axis} {label_text(axis, label)}"


def _shorten(words: Iterable[object]) -> str:
    texts = [str(word) for word in words]
    return ", ".join(texts if len(texts) < 9 else [*texts[:4], "...", *texts[-2:]])
