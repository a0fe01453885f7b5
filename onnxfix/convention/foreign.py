"""Kinds of caches that no layout describes: found by their signs, and refused by name."""

from __future__ import annotations

import re

from onnxfix.convention.binding import Binding
from onnxfix.convention.signature import Port, Signature

_PAGED = re.compile(r"(kv_)?(block|page)_tables?|slot_mapping")
_LATENT = re.compile(r"(.*[._])?(compressed_kv|kv_latent|c_kv|k_pe)([._]\d+)?([._].*)?")
_QUANTISED = re.compile(r"u?int[248]|float[468]_?e.*")
_FLAT = 4096


def refusal(binding: Binding) -> str:
    """Returns why the caches of a model are not what their names and ranks seem to say; empty if they are.

    Paged caches have a table of blocks beside them, quantised ones hold eight bits or less (ONNX Runtime GenAI
    exports both under the names of whole ones).
    """
    if paged := _first(binding.signature, _PAGED):
        return f"its caches are paged (`{paged.name}`): blocks of many streams lie in one pool"
    for cache in binding.caches:
        for tensor in cache.past:
            if _QUANTISED.fullmatch(tensor.port.dtype) and "dim" in cache.spec.axes:
                return f"its cache `{tensor.port.name}` is quantised ({tensor.port.dtype}): the scales lie elsewhere"
    return ""


def hints(signature: Signature) -> list[str]:
    """Returns what speaks for caches that onnxfix does not move, for a model that speaks no known convention."""
    found = []
    if paged := _first(signature, _PAGED):
        found.append(f"`{paged.name}` looks like the table of a paged cache")
    if latent := _first(signature, _LATENT):
        found.append(f"`{latent.name}` looks like a latent (MLA) cache, which keys and values are computed from")
    for port in signature.inputs:
        sizes = [dim for dim in port.dims or () if isinstance(dim, int) and dim != 1]
        if "state" in port.name and len(sizes) == 1 and sizes[0] > _FLAT:
            found.append(f"`{port.name}` looks like many states in one flat vector")
    return [f"{sign}: onnxfix does not move these" for sign in found]


def _first(signature: Signature, pattern: re.Pattern[str]) -> Port | None:
    return next((port for port in signature.inputs if pattern.fullmatch(port.name)), None)
