"""What each input that is no cache is for: from the model's convention, else from its namesake in the library."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from onnxfix.convention.binding import Binding
from onnxfix.convention.convention import Convention, PortSpec
from onnxfix.convention.expression import Expression
from onnxfix.convention.load import library
from onnxfix.convention.signature import Port


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
    for port in binding.signature.inputs:
        if port.name not in bound and port.name not in caches and (found := _namesake(port, binding, is_input=True)):
            bound[port.name] = found
    return bound


def known_outputs(binding: Binding) -> dict[str, KnownPort]:
    """Returns the outputs whose role is known, by name."""
    bound = {name: KnownPort(spec, binding.convention.sizes) for name, spec in binding.outputs.items()}
    caches = {tensor.port.name for cache in binding.caches for tensor in cache.present}
    for port in binding.signature.outputs:
        if port.name not in bound and port.name not in caches and (found := _namesake(port, binding, is_input=False)):
            bound[port.name] = found
    return bound


def _namesake(port: Port, binding: Binding, *, is_input: bool) -> KnownPort | None:
    """Returns what the library's conventions say of a port of this name: first the one most like the model."""
    for convention in sorted(library().values(), key=lambda one: (-_likeness(one, binding), one.name)):
        for spec in convention.inputs if is_input else convention.outputs:
            if spec.name == port.name and spec.dtype in (None, port.dtype) and port.rank in (None, spec.layout.rank):
                return KnownPort(spec, convention.sizes)
    return None


def _likeness(convention: Convention, binding: Binding) -> int:
    names = {port.name for port in (*binding.signature.inputs, *binding.signature.outputs)}
    return len(names & {spec.name for spec in (*convention.inputs, *convention.outputs)})
