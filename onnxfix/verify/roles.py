"""What each port that is no cache is for: by the model's convention, by a namesake in the library, by its own name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from onnxfix.convention.binding import Binding, BoundCache
from onnxfix.convention.convention import Convention, PortSpec
from onnxfix.convention.expression import Expression
from onnxfix.convention.layout import Layout
from onnxfix.convention.load import library
from onnxfix.convention.signature import Port

_WORDS: tuple[tuple[str, str, str], ...] = (
    ("mask", "mask", "key"),
    ("offset", "offset", ""),
    ("pos|position|positions", "positions", "sequence"),
    ("ids|tokens?", "tokens", "sequence"),
    ("len|lens|length|lengths", "lengths", ""),
    ("sr|sample_rate|sampling_rate", "rate", ""),
    ("use_cache|use_cache_branch", "flag", ""),
)
"""A word in a port's name, the role that it tells, and the last axis of such a port. In order: `position_ids` are
positions."""


@dataclass(frozen=True)
class KnownPort:
    """A port with what a convention says of it.

    Attributes:
        spec: Its role and layout.
        sizes: The sizes that this convention derives, by axis.
    """

    spec: PortSpec
    sizes: Mapping[str, Expression]


def known_inputs(binding: Binding) -> dict[str, KnownPort]:
    """Returns the inputs whose role is known, by name."""
    bound = {name: KnownPort(spec, binding.convention.sizes) for name, spec in binding.inputs.items()}
    caches = {tensor.port.name for cache in binding.caches for tensor in cache.past}
    likely = _by_likeness(binding)
    for port in binding.signature.inputs:
        if port.name not in bound and port.name not in caches and (found := _namesake(port, likely, is_input=True)):
            bound[port.name] = found
    return bound


def known_outputs(binding: Binding) -> dict[str, KnownPort]:
    """Returns the outputs whose role is known, by name."""
    bound = {name: KnownPort(spec, binding.convention.sizes) for name, spec in binding.outputs.items()}
    caches = {tensor.port.name for cache in binding.caches for tensor in cache.present}
    likely = _by_likeness(binding)
    for port in binding.signature.outputs:
        if port.name not in bound and port.name not in caches and (found := _namesake(port, likely, is_input=False)):
            bound[port.name] = found
    return bound


def _by_likeness(binding: Binding) -> list[tuple[Convention, int]]:
    """Returns the library's conventions and how many other ports they share with the model; most of them first."""
    names = {port.name for port in (*binding.signature.inputs, *binding.signature.outputs)}
    shared = {
        convention.name: len(names & {spec.name for spec in (*convention.inputs, *convention.outputs)})
        for convention in library().values()
    }
    ordered = sorted(library().values(), key=lambda one: (-shared[one.name], one.name))
    return [(convention, shared[convention.name]) for convention in ordered]


def _namesake(port: Port, conventions: Iterable[tuple[Convention, int]], *, is_input: bool) -> KnownPort | None:
    """Returns what the first convention says that has a port of this name, or what the name itself does.

    Anything may be called `x`: a single letter tells something only where more is shared.
    """
    for convention, shared in conventions:
        if len(port.name) < 2 and shared < 2:
            break
        for spec in convention.inputs if is_input else convention.outputs:
            if spec.name == port.name and spec.dtype in (None, port.dtype) and port.rank in (None, spec.layout.rank):
                return KnownPort(spec, convention.sizes)
    return _by_name(port) if is_input else None


def _by_name(port: Port) -> KnownPort | None:
    """Returns what the words in a port's name tell; a float is only ever believed to be a mask."""
    if port.dims is None:
        return None
    for words, role, last in _WORDS:
        if not _has_word(words, port.name) or ("float" in port.dtype and role != "mask"):
            continue
        axes = [f"axis{index}" for index in range(len(port.dims))]
        if len(axes) > 1:
            axes[0] = "batch"
        if axes and last:
            axes[-1] = last
        return KnownPort(PortSpec(role, port.name, Layout(tuple((axis,) for axis in axes)), port.dtype), {})
    return None


def is_mask(cache: BoundCache) -> bool:
    """Whether what is carried along says which frames of the other caches count."""
    return any(_has_word("mask", name) for name in (cache.spec.name, *(tensor.port.name for tensor in cache.past)))


def _has_word(words: str, name: str) -> bool:
    return re.search(rf"(?<![a-z])({words})(?![a-z])", name.lower()) is not None
