"""Conventions as TOML: the library that ships with onnxfix, files of one's own, and back to text.

Every error names the file and the path of the key (`my.toml: cache[0].past`).
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TypeAlias

from onnxfix.convention.convention import (
    ORDERS,
    ROLES,
    UPDATES,
    CacheSpec,
    Convention,
    MetadataSpec,
    PortSpec,
    TensorSpec,
    cache_from_specs,
    parse_tensor,
)
from onnxfix.convention.expression import Expression
from onnxfix.convention.layout import parse_layout
from onnxfix.errors import ConventionError, LayoutError

TomlValue: TypeAlias = "str | int | float | bool | list[TomlValue] | dict[str, TomlValue] | object"
Table: TypeAlias = Mapping[str, TomlValue]

_CONVENTION = {
    "name", "description", "source", "successor", "cache", "input", "output", "sizes", "order", "metadata",
}  # fmt: skip
_CACHE = {"name", "past", "present", "past-dims", "present-dims", "init", "update", "optional"}
_PORT = {"role", "port", "dtype", "feed", "optional"}


@cache
def library() -> Mapping[str, Convention]:
    """Returns the conventions that ship with onnxfix, by name, sorted."""
    folder = resources.files("onnxfix.convention") / "library"
    files = sorted((entry for entry in folder.iterdir() if entry.name.endswith(".toml")), key=lambda entry: entry.name)
    found = [parse_convention(entry.read_text(encoding="utf-8"), where=entry.name) for entry in files]
    return {convention.name: convention for convention in found}


def load_convention(name: str | Path) -> Convention:
    """Returns a convention of the library by its name, or reads a TOML file.

    Raises:
        ConventionError: No such name or file, or the file does not hold a convention.
        LayoutError: A sentence in the file does not parse.
    """
    text = str(name)
    if text in library():
        return library()[text]
    path = Path(name)
    if not text.endswith(".toml"):
        import difflib

        close = difflib.get_close_matches(text, library(), n=2)
        guess = f"did you mean {' or '.join(close)}? " if close else ""
        hint = f"{guess}known are {', '.join(library())}; or give a file that ends in .toml, or a sentence"
        raise ConventionError(f"no convention is called `{text}`", hint=hint)
    try:
        content = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConventionError(f"the convention cannot be read: {error.strerror}", where=text) from None
    except UnicodeDecodeError:
        raise ConventionError("the convention is no UTF-8 text", where=text) from None
    return parse_convention(content, where=text)


def parse_convention(text: str, *, where: str) -> Convention:
    """Returns the convention that a TOML text describes.

    Args:
        text: The TOML text.
        where: The file's name, for errors.

    Raises:
        ConventionError: The text is no TOML, has unknown or missing keys, or contradicts itself.
        LayoutError: A sentence does not parse.
    """
    try:
        table: Table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConventionError(f"this is no TOML: {error}", where=where) from None
    reader = _Reader(where)
    reader.allow(table, _CONVENTION, "")
    caches = tuple(reader.cache(entry, f"cache[{index}]") for index, entry in enumerate(reader.tables(table, "cache")))
    if not caches:
        raise ConventionError("a convention has at least one [[cache]]", where=where)
    names = [spec.name for spec in caches]
    if len(set(names)) != len(names):
        raise ConventionError("two caches have the same name", where=f"{where}: cache")
    order = reader.table(table, "order")
    reader.allow(order, {"inputs", "outputs", "caches"}, "order")
    return Convention(
        name=reader.string(table, "name", ""),
        description=reader.string(table, "description", "", ""),
        source=reader.string(table, "source", "", ""),
        caches=caches,
        inputs=tuple(
            reader.port(entry, f"input[{index}]") for index, entry in enumerate(reader.tables(table, "input"))
        ),
        outputs=tuple(
            reader.port(entry, f"output[{index}]") for index, entry in enumerate(reader.tables(table, "output"))
        ),
        sizes=reader.expressions(reader.table(table, "sizes"), "sizes"),
        input_order=reader.strings(order, "inputs", "order"),
        output_order=reader.strings(order, "outputs", "order"),
        cache_order=reader.cache_order(order),
        metadata=reader.metadata(reader.table(table, "metadata")),
        successor=reader.string(table, "successor", "", "") or None,
    )


class _Reader:
    """Takes values out of TOML tables; every error carries the file and the key path."""

    def __init__(self, file: str) -> None:
        self.file = file

    def fail(self, message: str, path: str, hint: str = "") -> ConventionError:
        return ConventionError(message, where=f"{self.file}: {path}" if path else self.file, hint=hint)

    def allow(self, table: Table, keys: set[str], path: str) -> None:
        for key in table:
            if key not in keys:
                place = f"{path}.{key}" if path else key
                raise self.fail("this key is not known here", place, f"known are {', '.join(sorted(keys))}")

    def string(self, table: Table, key: str, path: str, default: str | None = None) -> str:
        value = table.get(key, default)
        place = f"{path}.{key}" if path else key
        if value is None:
            raise self.fail("this key is missing", place)
        if not isinstance(value, str):
            raise self.fail("a string is expected here", place)
        return value

    def strings(self, table: Table, key: str, path: str) -> tuple[str, ...]:
        value = table.get(key, [])
        values = [value] if isinstance(value, str) else value
        if not isinstance(values, list) or not all(isinstance(text, str) for text in values):
            raise self.fail("a string or a list of strings is expected here", f"{path}.{key}")
        return tuple(str(text) for text in values)

    def flag(self, table: Table, key: str, path: str) -> bool:
        value = table.get(key, False)
        if not isinstance(value, bool):
            raise self.fail("true or false is expected here", f"{path}.{key}")
        return value

    def table(self, table: Table, key: str) -> Table:
        value = table.get(key, {})
        if not isinstance(value, dict):
            raise self.fail(f"a table is expected here: [{key}]", key)
        return value

    def tables(self, table: Table, key: str) -> Sequence[Table]:
        value = table.get(key, [])
        if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
            raise self.fail(f"tables are expected here: [[{key}]]", key)
        return value

    def texts(self, table: Table, key: str, path: str) -> dict[str, str]:
        value = table.get(key, {})
        if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
            raise self.fail("a table of strings is expected here", f"{path}.{key}" if path else key)
        return {name: str(text) for name, text in value.items()}

    def expressions(self, table: Table, path: str) -> dict[str, Expression]:
        found = {}
        for key, value in table.items():
            if not isinstance(value, str | int) or isinstance(value, bool):
                raise self.fail("a number or an expression is expected here", f"{path}.{key}")
            found[key] = self.expression(str(value), f"{path}.{key}")
        return found

    def expression(self, text: str, path: str) -> Expression:
        try:
            return Expression.parse(text)
        except LayoutError as error:
            error.where = f"{self.file}: {path}"
            raise

    def sentences(self, table: Table, key: str, path: str, dims_key: str) -> list[TensorSpec]:
        texts = self.strings(table, key, path)
        single = isinstance(table.get(key), str)
        places = [f"{self.file}: {path}.{key}" + ("" if single else f"[{index}]") for index in range(len(texts))]
        dims = self.texts(table, dims_key, path)
        specs = [parse_tensor(text, where=place) for text, place in zip(texts, places, strict=True)]
        known = {axis for spec in specs for axis in (*spec.layout.axes, *str(spec.layout).split(" "))}
        known |= {
            part for spec in specs for part in (f"({' '.join(item)})" for item in spec.layout.items if len(item) > 1)
        }
        for axis in dims:
            if axis not in known:
                raise self.fail(f"no layout of this cache has the axis `{axis}`", f"{path}.{dims_key}.{axis}")
        return [TensorSpec(spec.template, spec.layout, dims) for spec in specs]

    def cache(self, table: Table, path: str) -> CacheSpec:
        self.allow(table, _CACHE, path)
        past = self.sentences(table, "past", path, "past-dims")
        if not past:
            raise self.fail("this key is missing", f"{path}.past")
        present = self.sentences(table, "present", path, "present-dims")
        init = table.get("init", 0.0)
        if not isinstance(init, int | float) or isinstance(init, bool):
            raise self.fail("a number is expected here", f"{path}.init")
        update = self.string(table, "update", path, "") or None
        if update is not None and update not in UPDATES:
            raise self.fail(f"`{update}` is no update rule", f"{path}.update", f"known are {', '.join(UPDATES)}")
        return cache_from_specs(
            self.string(table, "name", path), past, present, where=f"{self.file}: {path}",
            init=float(init), update=update, optional=self.flag(table, "optional", path),
        )  # fmt: skip

    def port(self, table: Table, path: str) -> PortSpec:
        self.allow(table, _PORT, path)
        role = self.string(table, "role", path)
        if role not in ROLES:
            raise self.fail(f"`{role}` is no role", f"{path}.role", f"known are {', '.join(ROLES)}")
        text = self.string(table, "port", path)
        name, colon, layout = text.rpartition(":")
        if not colon or not name:
            raise self.fail("a port is NAME: LAYOUT (nothing behind the colon for a scalar)", f"{path}.port")
        try:
            parsed = parse_layout(layout, whole=text, offset=len(name) + 1)
        except LayoutError as error:
            error.where = f"{self.file}: {path}.port"
            raise
        dtype = self.string(table, "dtype", path, "") or None
        feed = table.get("feed")
        if feed is not None and (not isinstance(feed, str | int) or isinstance(feed, bool)):
            raise self.fail("a number or an expression is expected here", f"{path}.feed")
        value = None if feed is None else self.expression(str(feed), f"{path}.feed")
        return PortSpec(role, name.strip(), parsed, dtype, value, self.flag(table, "optional", path))

    def cache_order(self, table: Table) -> tuple[str, ...]:
        value = table.get("caches", ())
        if isinstance(value, str):
            if value not in ORDERS:
                raise self.fail(
                    f"`{value}` is no order", "order.caches", f"known are {', '.join(ORDERS)}, or a list of axes"
                )
            return ORDERS[value]
        return self.strings(table, "caches", "order")

    def metadata(self, table: Table) -> MetadataSpec:
        self.allow(table, {"set", "copy", "derive"}, "metadata")
        derive = table.get("derive", {})
        if not isinstance(derive, dict):
            raise self.fail("a table of expressions is expected here", "metadata.derive")
        return MetadataSpec(
            self.texts(table, "set", "metadata"), self.texts(table, "copy", "metadata"),
            self.expressions(derive, "metadata.derive"),
        )  # fmt: skip


def to_toml(convention: Convention) -> str:
    """Returns the convention as TOML text; reading it again gives an equal convention."""
    lines = [f"{key} = {json.dumps(value)}" for key, value in _heads(convention) if value]
    for spec in convention.caches:
        lines += ["", "[[cache]]", *_cache_lines(spec)]
    for key, ports in (("input", convention.inputs), ("output", convention.outputs)):
        for port in ports:
            lines += ["", f"[[{key}]]", *_port_lines(port)]
    if convention.sizes:
        lines += [
            "",
            "[sizes]",
            *(f"{json.dumps(key)} = {json.dumps(str(value))}" for key, value in convention.sizes.items()),
        ]
    orders = [
        ("inputs", convention.input_order),
        ("outputs", convention.output_order),
        ("caches", convention.cache_order),
    ]
    if any(order for _, order in orders):
        lines += ["", "[order]", *(f"{key} = {json.dumps(list(order))}" for key, order in orders if order)]
    metadata = convention.metadata
    derive = {key: str(value) for key, value in metadata.derive.items()}
    for key, entries in (("set", metadata.set), ("copy", metadata.copy), ("derive", derive)):
        if entries:
            lines += [
                "",
                f"[metadata.{key}]",
                *(f"{json.dumps(name)} = {json.dumps(text)}" for name, text in entries.items()),
            ]
    return "\n".join(lines) + "\n"


def _heads(convention: Convention) -> list[tuple[str, str | None]]:
    return [
        ("name", convention.name or "unnamed"),
        ("description", convention.description),
        ("source", convention.source),
        ("successor", convention.successor),
    ]


def _cache_lines(spec: CacheSpec) -> list[str]:
    lines = [f"name = {json.dumps(spec.name)}"]
    for key, specs in (("past", spec.past), ("present", spec.present)):
        if specs:
            texts = [str(tensor) for tensor in specs]
            lines.append(f"{key} = {json.dumps(texts[0] if len(texts) == 1 else texts)}")
    for key, specs in (("past-dims", spec.past), ("present-dims", spec.present)):
        if specs and specs[0].dims:
            inner = ", ".join(f"{json.dumps(axis)} = {json.dumps(name)}" for axis, name in specs[0].dims.items())
            lines.append(f"{key} = {{ {inner} }}")
    if spec.init:
        lines.append(f"init = {spec.init!r}")
    if spec.update:
        lines.append(f"update = {json.dumps(spec.update)}")
    if spec.optional:
        lines.append("optional = true")
    return lines


def _port_lines(port: PortSpec) -> list[str]:
    lines = [f"role = {json.dumps(port.role)}", f"port = {json.dumps(f'{port.name}: {port.layout}'.rstrip())}"]
    if port.dtype:
        lines.append(f"dtype = {json.dumps(port.dtype)}")
    if port.feed:
        lines.append(f"feed = {json.dumps(str(port.feed))}")
    if port.optional:
        lines.append("optional = true")
    return lines
