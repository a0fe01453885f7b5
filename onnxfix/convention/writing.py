"""Conventions back to TOML."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from onnxfix.convention.convention import CacheSpec, Convention, PortSpec
from onnxfix.convention.sign import Sign


def to_toml(convention: Convention) -> str:
    """Returns the convention as TOML text; reading it again gives an equal convention.

    Ad hoc sentences have no name; in the text they are called `unnamed`.
    """
    heads = (
        ("name", convention.name or "unnamed"),
        ("family", convention.family),
        ("description", convention.description),
        ("source", convention.source),
        ("consumer", convention.consumer),
        ("binds", convention.binds),
        ("successor", convention.successor or ""),
        ("refused", convention.refused),
        ("needs", convention.needs),
    )
    lines = [f"{key} = {_quote(value)}" for key, value in heads if value]
    for spec in convention.caches:
        lines += ["", "[[cache]]", *_cache_lines(spec)]
    for key, ports in (("input", convention.inputs), ("output", convention.outputs)):
        for port in ports:
            lines += ["", f"[[{key}]]", *_port_lines(port)]
    for sign in convention.signs:
        lines += ["", "[[sign]]", *_sign_lines(sign)]
    orders = {"inputs": convention.input_order, "outputs": convention.output_order, "caches": convention.cache_order}
    metadata = convention.metadata
    lines += _table_lines("sizes", {key: _quote(str(value)) for key, value in convention.sizes.items()})
    lines += _table_lines("order", {key: _quotes(order) for key, order in orders.items() if order})
    lines += _table_lines("metadata", {"needed": _quotes(metadata.needed)} if metadata.needed else {})
    lines += _table_lines("metadata.set", {key: _quote(text) for key, text in metadata.set.items()})
    lines += _table_lines("metadata.copy", {key: _quote(text) for key, text in metadata.copy.items()})
    lines += _table_lines("metadata.derive", {key: _quote(str(value)) for key, value in metadata.derive.items()})
    return "\n".join(lines) + "\n"


def _table_lines(name: str, entries: Mapping[str, str]) -> list[str]:
    return ["", f"[{name}]", *(f"{_quote(key)} = {text}" for key, text in entries.items())] if entries else []


def _cache_lines(spec: CacheSpec) -> list[str]:
    lines = [f"name = {_quote(spec.name)}"]
    for key, specs in (("past", spec.past), ("present", spec.present)):
        if specs:
            texts = [str(tensor) for tensor in specs]
            lines.append(f"{key} = {_quote(texts[0]) if len(texts) == 1 else _quotes(texts)}")
            lines += _dims_lines(f"{key}-dims", specs[0].dims)
    lines += [f"init = {spec.init!r}"] if spec.init else []
    lines += [f"update = {_quote(spec.update)}"] if spec.update else []
    lines += ["optional = true"] if spec.optional else []
    return lines + (["present-optional = true"] if spec.present_optional else [])


def _port_lines(port: PortSpec) -> list[str]:
    lines = [f"role = {_quote(port.role)}", f"port = {_quote(f'{port.name}: {port.layout}'.rstrip())}"]
    lines += _dims_lines("dims", port.dims)
    lines += [f"dtype = {_quote(port.dtype)}"] if port.dtype else []
    lines += [f"feed = {_quote(str(port.feed))}"] if port.feed else []
    return lines + (["optional = true"] if port.optional else [])


def _sign_lines(sign: Sign) -> list[str]:
    texts = {"input": sign.input, "output": sign.output, "absent": sign.absent, "dtype": sign.dtype}
    numbers = {"rank": sign.rank, "least": sign.least}
    lines = [f"{key} = {_quote(text)}" for key, text in texts.items() if text is not None]
    return lines + [f"{key} = {number}" for key, number in numbers.items() if number is not None]


def _dims_lines(key: str, dims: Mapping[str, str]) -> list[str]:
    entries = ", ".join(f"{_quote(item)} = {_quote(name)}" for item, name in dims.items())
    return [f"{key} = {{ {entries} }}"] if dims else []


def _quotes(texts: Iterable[str]) -> str:
    return f"[{', '.join(_quote(text) for text in texts)}]"


def _quote(text: str) -> str:
    """Returns a TOML string. JSON's escapes are TOML's, but TOML wants DEL escaped and knows no pairs of surrogates."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
