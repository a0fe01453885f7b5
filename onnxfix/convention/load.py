"""Conventions as TOML: the library that ships with onnxfix, files of one's own, and back to text.

Every error names the file and the path of the key (`my.toml: cache[0].past`).
"""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Collection, Iterable, Mapping, Sequence
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
    check_names,
    parse_tensor,
)
from onnxfix.convention.expression import Expression
from onnxfix.convention.layout import Layout, parse_layout, show_item
from onnxfix.errors import ConventionError, LayoutError

Table: TypeAlias = Mapping[str, object]

_CONVENTION = (
    "name", "description", "source", "successor", "cache", "input", "output", "sizes", "order", "metadata",
)  # fmt: skip
_CACHE = ("name", "past", "present", "past-dims", "present-dims", "init", "update", "optional")
_PORT = ("role", "port", "dims", "dtype", "feed", "optional")


@cache
def library() -> Mapping[str, Convention]:
    """Returns the conventions that ship with onnxfix, by name, sorted."""
    folder = resources.files("onnxfix.convention") / "library"
    files = [entry for entry in folder.iterdir() if entry.name.endswith(".toml")]
    found = [parse_convention(entry.read_text(encoding="utf-8"), where=entry.name) for entry in files]
    return {convention.name: convention for convention in sorted(found, key=lambda one: one.name)}


def load_convention(name: str | Path) -> Convention:
    """Returns a convention of the library by its name, or reads a TOML file.

    Raises:
        ConventionError: No such name or file, or the file does not hold a convention.
        LayoutError: A sentence in the file does not parse.
    """
    text = str(name)
    if text in library():
        return library()[text]
    if not text.endswith(".toml"):
        close = difflib.get_close_matches(text, library(), n=2)
        guess = f"did you mean {' or '.join(close)}? " if close else ""
        hint = f"{guess}known are {', '.join(library())}; or give a file that ends in .toml, or a sentence"
        raise ConventionError(f"no convention is called `{text}`", hint=hint)
    try:
        # A pipe would be waited for.
        if Path(name).exists() and not Path(name).is_file():
            raise ConventionError("this is no regular file", where=text, hint="write the convention into a file first")
        content = Path(name).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConventionError(f"the convention cannot be read: {error.strerror}", where=text) from None
    except UnicodeDecodeError:
        raise ConventionError("the convention is no UTF-8 text", where=text) from None
    except ValueError as error:
        raise ConventionError(f"the convention cannot be read: {error}", where=text) from None
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
    except RecursionError:
        raise ConventionError("this TOML nests too deeply", where=where) from None
    return _Reader(where).convention(table)


class _Reader:
    """Takes values out of TOML tables; every error carries the file and the key path."""

    def __init__(self, file: str) -> None:
        self.file = file

    def place(self, path: str) -> str:
        return f"{self.file}: {path}" if path else self.file

    def fail(self, message: str, path: str, hint: str = "") -> ConventionError:
        return ConventionError(message, where=self.place(path), hint=hint)

    def convention(self, table: Table) -> Convention:
        self.allow(table, _CONVENTION, "")
        caches = [self.cache(entry, f"cache[{index}]") for index, entry in enumerate(self.tables(table, "cache"))]
        if not caches:
            raise self.fail("a convention has at least one [[cache]]", "")
        inputs = [self.port(entry, f"input[{index}]") for index, entry in enumerate(self.tables(table, "input"))]
        outputs = [self.port(entry, f"output[{index}]") for index, entry in enumerate(self.tables(table, "output"))]
        self.distinct([spec.name for spec in caches], "cache", "name")
        check_names(caches, [self.place(f"cache[{index}]") for index in range(len(caches))])
        for key, ports in (("input", inputs), ("output", outputs)):
            self.distinct([spec.name for spec in ports], key, "port")
            self.apart(ports, caches, key)
        order = self.table(table, "order")
        self.allow(order, ("inputs", "outputs", "caches"), "order")
        return Convention(
            name=self.string(table, "name", ""),
            description=self.string(table, "description", "", ""),
            source=self.string(table, "source", "", ""),
            caches=tuple(caches),
            inputs=tuple(inputs),
            outputs=tuple(outputs),
            sizes=self.sizes(self.table(table, "sizes"), caches, [*inputs, *outputs]),
            input_order=self.order(order, "inputs", [*caches, *inputs]),
            output_order=self.order(order, "outputs", [*caches, *outputs]),
            cache_order=self.cache_order(order, caches),
            metadata=self.metadata(self.table(table, "metadata")),
            successor=self.string(table, "successor", "", "") or None,
        )

    # Values of one type.

    def allow(self, table: Table, keys: Collection[str], path: str) -> None:
        for key in table:
            if key not in keys:
                close = difflib.get_close_matches(key, keys, n=1)
                hint = f"did you mean `{close[0]}`?" if close else f"known are {', '.join(sorted(keys))}"
                raise self.fail("this key is not known here", _join(path, key), hint)

    def string(self, table: Table, key: str, path: str, default: str | None = None) -> str:
        value = table.get(key, default)
        if value is None:
            raise self.fail("this key is missing", _join(path, key))
        if not isinstance(value, str):
            raise self.fail("a string is expected here", _join(path, key))
        if not value and default is None:
            raise self.fail("this string is empty", _join(path, key))
        return value

    def strings(self, table: Table, key: str, path: str) -> tuple[str, ...]:
        value = table.get(key, [])
        values = [value] if isinstance(value, str) else value
        if not isinstance(values, list) or not all(isinstance(text, str) for text in values):
            raise self.fail("a string or a list of strings is expected here", _join(path, key))
        return tuple(str(text) for text in values)

    def flag(self, table: Table, key: str, path: str) -> bool:
        value = table.get(key, False)
        if not isinstance(value, bool):
            raise self.fail("true or false is expected here", _join(path, key))
        return value

    def table(self, table: Table, key: str, path: str = "") -> Table:
        value = table.get(key, {})
        if not isinstance(value, dict):
            raise self.fail(f"a table is expected here: [{_join(path, key)}]", _join(path, key))
        return value

    def tables(self, table: Table, key: str) -> Sequence[Table]:
        value = table.get(key, [])
        if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
            raise self.fail(f"tables are expected here: [[{key}]]", key)
        return value

    def texts(self, table: Table, key: str, path: str) -> dict[str, str]:
        found = {}
        for name, text in self.table(table, key, path).items():
            if not isinstance(text, str):
                raise self.fail("a string is expected here", f"{_join(path, key)}.{name}")
            found[name] = text
        return found

    def expression(self, value: object, path: str) -> Expression:
        if not isinstance(value, str | int) or isinstance(value, bool):
            raise self.fail("a number or an expression is expected here", path)
        try:
            return Expression.parse(str(value))
        except LayoutError as error:
            error.where = self.place(path)
            raise

    def expressions(self, table: Table, path: str) -> dict[str, Expression]:
        return {key: self.expression(value, f"{path}.{key}") for key, value in table.items()}

    # Parts of a convention.

    def cache(self, table: Table, path: str) -> CacheSpec:
        self.allow(table, _CACHE, path)
        name = self.string(table, "name", path)
        past = self.sentences(table, "past", path)
        if not past:
            raise self.fail("this key is missing", f"{path}.past")
        present = self.sentences(table, "present", path)
        init = table.get("init", 0.0)
        if not isinstance(init, int | float) or isinstance(init, bool):
            raise self.fail("a number is expected here", f"{path}.init")
        update = self.string(table, "update", path, "") or None
        if update is not None and update not in UPDATES:
            raise self.fail(f"`{update}` is no update rule", f"{path}.update", f"known are {', '.join(UPDATES)}")
        return cache_from_specs(
            name, past, present, where=self.place(path),
            init=float(init), update=update, optional=self.flag(table, "optional", path),
        )  # fmt: skip

    def sentences(self, table: Table, key: str, path: str) -> list[TensorSpec]:
        texts = self.strings(table, key, path)
        single = isinstance(table.get(key), str)
        places = [f"{path}.{key}" + ("" if single else f"[{index}]") for index in range(len(texts))]
        specs = [parse_tensor(text, where=self.place(place)) for text, place in zip(texts, places, strict=True)]
        dims = self.dims(table, f"{key}-dims", path, [spec.layout for spec in specs])
        return [TensorSpec(spec.template, spec.layout, dims) for spec in specs]

    def dims(self, table: Table, key: str, path: str, layouts: Iterable[Layout]) -> dict[str, str]:
        dims = self.texts(table, key, path)
        items = [show_item(item) for layout in layouts for item in layout.items if item]
        for item in dims:
            if item not in items:
                hint = f"there are {', '.join(dict.fromkeys(items))}" if items else ""
                raise self.fail(f"no layout here has a dimension `{item}`", f"{path}.{key}.{item}", hint)
        return dims

    def port(self, table: Table, path: str) -> PortSpec:
        self.allow(table, _PORT, path)
        role = self.string(table, "role", path)
        if role not in ROLES:
            raise self.fail(f"`{role}` is no role", f"{path}.role", f"known are {', '.join(ROLES)}")
        text = self.string(table, "port", path)
        name, colon, layout = text.rpartition(":")
        if not colon or not name.strip():
            raise self.fail("a port is NAME: LAYOUT (nothing behind the colon for a scalar)", f"{path}.port")
        try:
            parsed = parse_layout(layout, whole=text, offset=len(name) + 1)
        except LayoutError as error:
            error.where = self.place(f"{path}.port")
            raise
        dtype = self.string(table, "dtype", path, "") or None
        feed = self.expression(table["feed"], f"{path}.feed") if "feed" in table else None
        dims = self.dims(table, "dims", path, [parsed])
        return PortSpec(role, name.strip(), parsed, dtype, feed, self.flag(table, "optional", path), dims)

    def sizes(self, table: Table, caches: Iterable[CacheSpec], ports: Iterable[PortSpec]) -> dict[str, Expression]:
        known = {axis for port in ports for axis in port.layout.axes}
        for cache_spec in caches:
            known |= cache_spec.axes | {f"{cache_spec.name}.{axis}" for axis in cache_spec.axes}
        for key in table:
            if key not in known:
                raise self.fail("no cache and no port has this axis", f"sizes.{key}", "AXIS, or CACHE.AXIS in quotes")
        return self.expressions(table, "sizes")

    def order(self, table: Table, key: str, specs: Iterable[CacheSpec | PortSpec]) -> tuple[str, ...]:
        names = self.strings(table, key, "order")
        known = [spec.name for spec in specs]
        for name in names:
            if name not in known:
                raise self.fail(f"`{name}` is no cache and no port", f"order.{key}", f"known are {', '.join(known)}")
        self.distinct(names, f"order.{key}", "")
        return names

    def cache_order(self, table: Table, caches: Iterable[CacheSpec]) -> tuple[str, ...]:
        value = table.get("caches", ())
        if isinstance(value, str):
            if value not in ORDERS:
                known = f"known are {', '.join(ORDERS)}, or a list of axes and the word `cache`"
                raise self.fail(f"`{value}` is no order", "order.caches", known)
            return ORDERS[value]
        axes = self.strings(table, "caches", "order")
        known_axes = {axis for spec in caches for axis in spec.past[0].template.axes} | {"cache"}
        for axis in axes:
            if axis not in known_axes:
                hint = f"known are {', '.join(sorted(known_axes))}"
                raise self.fail(f"no cache is spread over `{axis}`", "order.caches", hint)
        self.distinct(axes, "order.caches", "")
        return axes

    def metadata(self, table: Table) -> MetadataSpec:
        self.allow(table, ("set", "copy", "derive"), "metadata")
        return MetadataSpec(
            self.texts(table, "set", "metadata"),
            self.texts(table, "copy", "metadata"),
            self.expressions(self.table(table, "derive", "metadata"), "metadata.derive"),
        )

    # Contradictions.

    def distinct(self, names: Sequence[str], path: str, key: str) -> None:
        for index, name in enumerate(names):
            if name in names[:index]:
                raise self.fail(f"`{name}` stands twice", _join(f"{path}[{index}]", key) if key else path)

    def apart(self, ports: Iterable[PortSpec], caches: Iterable[CacheSpec], key: str) -> None:
        tensors = {
            tensor.template: spec.name
            for spec in caches
            for tensor in (spec.past if key == "input" else spec.present)
        }  # fmt: skip
        for index, port in enumerate(ports):
            for template, name in tensors.items():
                if template.match(port.name) is not None:
                    raise self.fail(f"`{port.name}` belongs to the cache `{name}` already", f"{key}[{index}].port")


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def to_toml(convention: Convention) -> str:
    """Returns the convention as TOML text; reading it again gives an equal convention.

    Ad hoc sentences have no name; in the text they are called `unnamed`.
    """
    heads = (
        ("name", convention.name or "unnamed"),
        ("description", convention.description),
        ("source", convention.source),
        ("successor", convention.successor or ""),
    )
    lines = [f"{key} = {_quote(value)}" for key, value in heads if value]
    for spec in convention.caches:
        lines += ["", "[[cache]]", *_cache_lines(spec)]
    for key, ports in (("input", convention.inputs), ("output", convention.outputs)):
        for port in ports:
            lines += ["", f"[[{key}]]", *_port_lines(port)]
    orders = {"inputs": convention.input_order, "outputs": convention.output_order, "caches": convention.cache_order}
    metadata = convention.metadata
    lines += _table_lines("sizes", {key: _quote(str(value)) for key, value in convention.sizes.items()})
    lines += _table_lines("order", {key: _quotes(order) for key, order in orders.items() if order})
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
    return lines + (["optional = true"] if spec.optional else [])


def _port_lines(port: PortSpec) -> list[str]:
    lines = [f"role = {_quote(port.role)}", f"port = {_quote(f'{port.name}: {port.layout}'.rstrip())}"]
    lines += _dims_lines("dims", port.dims)
    lines += [f"dtype = {_quote(port.dtype)}"] if port.dtype else []
    lines += [f"feed = {_quote(str(port.feed))}"] if port.feed else []
    return lines + (["optional = true"] if port.optional else [])


def _dims_lines(key: str, dims: Mapping[str, str]) -> list[str]:
    entries = ", ".join(f"{_quote(item)} = {_quote(name)}" for item, name in dims.items())
    return [f"{key} = {{ {entries} }}"] if dims else []


def _quotes(texts: Iterable[str]) -> str:
    return f"[{', '.join(_quote(text) for text in texts)}]"


def _quote(text: str) -> str:
    """Returns a TOML string. JSON's escapes are TOML's, but TOML wants DEL escaped and knows no pairs of surrogates."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
