"""Models that speak a given convention, without any model: their signatures, and arrays for their caches."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from einops import rearrange

from onnxfix.convention.binding import bind
from onnxfix.convention.convention import Convention, TensorSpec, convention_from_sentences
from onnxfix.convention.load import library
from onnxfix.convention.plan import Edits, Plan, make_plan
from onnxfix.convention.signature import Dim, Port, Signature
from onnxfix.convention.sketch import SIZES, Labels, Sizes, names_of, signature_of

if TYPE_CHECKING:
    from onnxfix.convention.route import Array


def signature_after(plan: Plan) -> Signature:
    """Gives the model that a conversion leaves."""
    metadata = {**plan.binding.signature.metadata, **plan.metadata}
    return Signature(plan.inputs, plan.outputs, metadata)


def anonymous(signature: Signature) -> Signature:
    """Gives the model with other names for its symbolic dims."""
    names: dict[str, str] = {}

    def rename(port: Port) -> Port:
        dims = tuple(
            names.setdefault(dim, f"s{len(names)}") if isinstance(dim, str) else dim for dim in port.dims or ()
        )
        return replace(port, dims=dims)

    return replace(
        signature, inputs=tuple(map(rename, signature.inputs)), outputs=tuple(map(rename, signature.outputs))
    )


def shuffled(signature: Signature, seed: int = 0) -> Signature:
    """Gives the model with its ports in another order."""
    random = np.random.default_rng(seed)
    return replace(
        signature,
        inputs=tuple(signature.inputs[index] for index in random.permutation(len(signature.inputs))),
        outputs=tuple(signature.outputs[index] for index in random.permutation(len(signature.outputs))),
    )


def logical(axes: Sequence[str], sizes: Mapping[str, int]) -> Array:
    """Gives a whole cache with a value of its own at every place."""
    shape = tuple(sizes[axis] for axis in axes)
    return np.arange(math.prod(shape), dtype=np.float32).reshape(shape)


def spread(
    whole: Array, axes: Sequence[str], specs: Sequence[TensorSpec], labels: Labels | None = None
) -> dict[str, Array]:
    """Takes a whole cache apart as einops understands the sentences; axes that they lack have size 1.

    Args:
        whole: The cache.
        axes: Its axes.
        specs: The sentences.
        labels: Which label is at which index of an axis, where it is not the index.
    """
    every = {axis: (labels or {}).get(axis, range(size)) for axis, size in zip(axes, whole.shape, strict=True)}
    arrays = {}
    for spec in specs:
        for name, row in names_of(spec, every):
            index = [
                every[axis].index(row[axis]) if axis in row else 0 if axis not in spec.axes else slice(None)
                for axis in axes
            ]
            left = [axis for axis, one in zip(axes, index, strict=True) if isinstance(one, slice)]
            arrays[name] = rearrange(whole[tuple(index)], f"{' '.join(left)} -> {spec.layout}")
    return arrays


def convention(text: str | list[str]) -> Convention:
    """Gives a convention of the library by name, or ad hoc sentences."""
    return library()[text] if isinstance(text, str) else convention_from_sentences(text)


def of_no_family(one: Convention) -> Convention:
    """Gives a convention that may meet any other."""
    return replace(one, family="")


def plan(
    source: str | list[str], target: str | list[str] | None, sizes: Sizes = SIZES, *,
    edits: Edits | None = None, given: Mapping[str, int] | None = None, labels: Labels | None = None,
    metadata: Mapping[str, str] | None = None, without: Iterable[str] = (),
) -> Plan:  # fmt: skip
    """Plans the conversion of a model that speaks `source`; sizes, labels and metadata are the model's.

    The target is of no family.
    """
    signature = signature_of(convention(source), sizes, labels=labels, metadata=metadata, without=without)
    return make_plan(
        bind(convention(source), signature, given), of_no_family(convention(target)) if target else None, edits
    )


def names(ports: Iterable[Port]) -> list[str]:
    """Gives the names of ports, in order."""
    return [port.name for port in ports]


def dims(ports: Iterable[Port]) -> dict[str, tuple[Dim, ...] | None]:
    """Gives the dims of ports, by name."""
    return {port.name: port.dims for port in ports}
