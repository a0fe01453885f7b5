"""What is worth a second look in a convention that can be read: what loading it does not tell."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from onnxfix.convention.binding import bind
from onnxfix.convention.convention import CacheSpec, Convention
from onnxfix.convention.load import library
from onnxfix.convention.sketch import SIZES, labels_of, signature_of
from onnxfix.convention.template import LABELS
from onnxfix.errors import OnnxfixError


def review(convention: Convention) -> tuple[str, ...]:
    """Returns remarks, the gravest first; a convention of the library gets none about its own name."""
    known = library().get(convention.name)
    remarks = list(_confusions(convention))
    for cache in convention.caches:
        remarks += _cache_remarks(cache, convention.sizes.keys())
    for kind, order, ports in (
        ("inputs", convention.input_order, convention.inputs),
        ("outputs", convention.output_order, convention.outputs),
    ):
        caches = [cache.name for cache in convention.caches if kind == "inputs" or cache.present]
        if order and (left := [name for name in (*(port.name for port in ports), *caches) if name not in order]):
            remarks.append(f"order.{kind} leaves out {_names(left)}: they stay where the model has them")
    if known is not None and known != convention:
        remarks.append(f"the library has another `{convention.name}`: the name means that one, the file means this one")
    remarks += [
        f"the library's `{name}` describes the same tensors"
        for name, other in library().items()
        if name != convention.name and _tensors(other) == _tensors(convention)
    ]
    return tuple(remarks)


def _confusions(convention: Convention) -> Iterator[str]:
    """Yields why a model of this very convention would not be read as it is meant."""
    if not convention.caches or convention.refused:
        return
    sizes = {axis: size for axis, size in SIZES.items() if isinstance(size, int)}
    axes = {axis for cache in convention.caches for axis in cache.axes}
    sizes |= {axis: 2 for axis in axes if axis not in sizes}
    for cache in convention.caches:
        for axis in cache.past[0].template.fixed.keys() - LABELS.keys():
            sizes[axis] = len({spec.template.fixed[axis] for spec in cache.past})
    # Labels of two digits show which holes run into each other.
    labels = {axis: [0, 1, 11] for axis in labels_of(sizes) if axis not in LABELS and sizes[axis] == 3}
    told = {f"{cache.name}.{axis}": sizes[axis] for cache in convention.caches for axis in cache.axes}
    try:
        bind(convention, signature_of(convention, sizes, labels=labels), told)
    except OnnxfixError as error:
        yield f"a model made of these sentences is not read by them: {error.where}: {error.message}"


def _cache_remarks(cache: CacheSpec, told: Collection[str]) -> Iterator[str]:
    """Yields what a cache leaves open."""
    for past, present in zip(cache.past, cache.present, strict=False):
        if past.layout != present.layout:
            yield f"the cache `{cache.name}` comes as `{past.layout}` and goes as `{present.layout}`: is that meant?"
    if cache.present and cache.update is None and "time" in cache.axes:
        rules = "append, window, delta, in-place"
        yield f"the cache `{cache.name}` does not say how it is updated ({rules}): it meets caches of any rule"
    for item in dict.fromkeys(item for spec in cache.past for item in spec.layout.items):
        known = {*LABELS, *told, *(key.rpartition(".")[2] for key in told if key.startswith(f"{cache.name}."))}
        open_axes = [axis for axis in item if axis not in known]
        if len(open_axes) > 1:
            sizes = " or ".join(f"`{axis}`" for axis in open_axes)
            yield f"the size of `({' '.join(item)})` does not tell {sizes}: [sizes] can, else --size must"


def _tensors(convention: Convention) -> list[tuple[list[str], list[str]]]:
    return [([str(one) for one in cache.past], [str(one) for one in cache.present]) for cache in convention.caches]


def _names(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
