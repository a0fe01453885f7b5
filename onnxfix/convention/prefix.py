"""Conventions behind a prefix: a wrapper around a network puts its own name before those of the ports."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from onnxfix.convention.convention import CacheSpec, Convention, PortSpec, TensorSpec
from onnxfix.convention.signature import Port, Signature
from onnxfix.convention.template import parse_template

_PREFIX = r"([^{}\s]{0,63}[./_:])"


def behind_prefix(convention: Convention, signature: Signature) -> tuple[Convention, str] | None:
    """Returns a convention as a model speaks it whose ports have a prefix (`model.past_key_values.0.key`).

    The prefix ends in `.`, `/`, `_` or `:`. All caches that the convention demands have the same, outputs perhaps
    another one than inputs; other ports have it or not.

    Args:
        convention: The convention; its name stays what it is.
        signature: The model's ports.

    Returns:
        The convention and the prefix, in words; None where there is none, or where caches differ in it.
    """
    demanded = [cache for cache in convention.caches if not cache.optional]
    past = _prefix([spec for cache in demanded for spec in cache.past], signature.inputs)
    handed = [spec for cache in demanded if not cache.present_optional for spec in cache.present]
    present = _prefix(handed, signature.outputs)
    if past is None or present is None or not (past or present):
        return None
    caches = tuple(_prefixed(cache, past, present) for cache in convention.caches)
    inputs = _ports(convention.inputs, past, signature.inputs)
    outputs = _ports(convention.outputs, present, signature.outputs)
    found = replace(
        convention,
        caches=caches,
        inputs=tuple(inputs.values()),
        outputs=tuple(outputs.values()),
        input_order=tuple(inputs[name].name if name in inputs else name for name in convention.input_order),
        output_order=tuple(outputs[name].name if name in outputs else name for name in convention.output_order),
    )
    return found, " and ".join(f"`{prefix}`" for prefix in dict.fromkeys((past, present)) if prefix)


def _prefix(specs: Iterable[TensorSpec], ports: Sequence[Port]) -> str | None:
    """Returns what all ports have before their names, `""` for nothing; None where a sentence has none, or several."""
    found: set[str] = set()
    for spec in specs:
        first = spec.template.parts[0]
        if not isinstance(first, str):
            return None  # Names that begin with a label would be found in almost any other.
        ends = re.compile(f"{_PREFIX}?({re.escape(first)}.*)", re.DOTALL)
        here = {
            hit[1] or ""
            for port in ports
            if first in port.name and (hit := ends.fullmatch(port.name)) and spec.template.match(hit[2]) is not None
        }
        if not here:
            return None
        found |= here
    return found.pop() if len(found) == 1 else None if found else ""


def _prefixed(cache: CacheSpec, past: str, present: str) -> CacheSpec:
    return replace(
        cache,
        past=tuple(_with(spec, past) for spec in cache.past),
        present=tuple(_with(spec, present) for spec in cache.present),
    )


def _with(spec: TensorSpec, prefix: str) -> TensorSpec:
    return replace(spec, template=parse_template(f"{prefix}{spec.template}"))


def _ports(specs: Iterable[PortSpec], prefix: str, ports: Iterable[Port]) -> dict[str, PortSpec]:
    """Returns the other ports as the model calls them, by the convention's names."""
    names = {port.name for port in ports}
    return {
        spec.name: replace(spec, name=f"{prefix}{spec.name}") if f"{prefix}{spec.name}" in names else spec
        for spec in specs
    }
