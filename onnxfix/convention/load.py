"""Conventions as TOML: the library that ships with onnxfix, and files of one's own.

Every error names the file and the path of the key (`my.toml: cache[0].past`).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path

from onnxfix.convention.convention import (
    BINDS,
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
from onnxfix.convention.sign import Sign
from onnxfix.convention.tables import Table, TableReader, join, read_table, read_text
from onnxfix.errors import ConventionError, LayoutError

_CONVENTION = (
    "name", "family", "description", "source", "consumer", "binds", "successor", "refused", "needs",
    "cache", "input", "output", "sign", "dims", "sizes", "order", "metadata",
)  # fmt: skip
_CACHE = ("name", "past", "present", "past-dims", "present-dims", "init", "update", "optional", "present-optional")
_PORT = ("role", "port", "dims", "dtype", "feed", "optional")
_SIGN = ("input", "output", "absent", "dtype", "rank", "least")
_FAMILY = re.compile(r"[a-z0-9-]+(/[a-z0-9-]+)*")


def library() -> Mapping[str, Convention]:
    """Returns the conventions that ship with onnxfix and that models are converted from and to, by name, sorted."""
    return _shipped()[0]


def refused() -> Mapping[str, Convention]:
    """Returns the conventions that are recognised only to be refused, by name, sorted."""
    return _shipped()[1]


@cache
def _shipped() -> tuple[Mapping[str, Convention], Mapping[str, Convention]]:
    folder = resources.files("onnxfix.convention") / "library"
    files = [entry for entry in folder.iterdir() if entry.name.endswith(".toml")]
    found = [parse_convention(entry.read_text(encoding="utf-8"), where=entry.name) for entry in files]
    found.sort(key=lambda one: one.name)
    return {one.name: one for one in found if not one.refused}, {one.name: one for one in found if one.refused}


def load_convention(name: str | Path) -> Convention:
    """Returns a convention that ships with onnxfix, refused or not, by its name, or reads a TOML file.

    Raises:
        ConventionError: No such name or file, or the file does not hold a convention.
        LayoutError: A sentence in the file does not parse.
    """
    text = str(name)
    for shipped in (library(), refused()):
        if text in shipped:
            return shipped[text]
    if not text.endswith(".toml"):
        close = difflib.get_close_matches(text, library(), n=2)
        guess = f"did you mean {' or '.join(close)}? " if close else ""
        hint = f"{guess}known are {', '.join(library())}; or give a file that ends in .toml, or a sentence"
        raise ConventionError(f"no convention is called `{text}`", hint=hint)
    content = read_text(Path(name), "the convention", ConventionError)
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
    table = read_table(text, where, ConventionError)
    return _Reader(where).convention(table)


class _Reader(TableReader):
    """Takes a convention out of TOML tables."""

    error = ConventionError

    def __init__(self, file: str) -> None:
        super().__init__(file)
        # Names for dims wherever they stand, and those of them that stand somewhere.
        self.common: dict[str, str] = {}
        self.met: set[str] = set()

    def convention(self, table: Table) -> Convention:
        self.allow(table, _CONVENTION, "")
        self.common = self.texts(table, "dims", "")
        refused = self.string(table, "refused", "", "")
        signs = [self.sign(entry, f"sign[{index}]") for index, entry in enumerate(self.tables(table, "sign"))]
        caches = [self.cache(entry, f"cache[{index}]") for index, entry in enumerate(self.tables(table, "cache"))]
        self.told(table, caches, signs, refused)
        inputs = [self.port(entry, f"input[{index}]") for index, entry in enumerate(self.tables(table, "input"))]
        outputs = [self.port(entry, f"output[{index}]") for index, entry in enumerate(self.tables(table, "output"))]
        self.distinct([spec.name for spec in caches], "cache", "name")
        check_names(caches, [self.place(f"cache[{index}]") for index in range(len(caches))])
        for key, ports in (("input", inputs), ("output", outputs)):
            self.distinct([spec.name for spec in ports], key, "port")
            self.apart(ports, caches, key)
        if unmet := sorted(self.common.keys() - self.met):
            raise self.fail(f"no layout here has a dimension `{unmet[0]}`", f"dims.{unmet[0]}")
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
            family=self.family(table),
            consumer=self.string(table, "consumer", "", ""),
            binds=self.choice(table, "binds", "", BINDS, "way to bind"),
            refused=refused,
            needs=self.string(table, "needs", "", ""),
            signs=tuple(signs),
        )

    def family(self, table: Table) -> str:
        family = self.string(table, "family", "", "")
        if family and not _FAMILY.fullmatch(family):
            raise self.fail(f"`{family}` is no family", "family", "words like decoder, or a path like speech/wenet")
        return family

    def told(self, table: Table, caches: Sequence[CacheSpec], signs: Sequence[Sign], refused: str) -> None:
        """Checks that there is what a convention, or one that is refused, is recognised by."""
        if not refused:
            for key in ("needs", "sign"):
                if key in table:
                    raise self.fail("this is for conventions that are refused only", key, "say why: refused = ...")
            if not caches:
                raise self.fail("a convention has at least one [[cache]]", "")
        elif not caches and not signs:
            raise self.fail("a convention that is refused has at least one [[sign]] or [[cache]]", "")
        if caches and not signs and all(spec.optional for spec in caches):
            hint = "leave `optional` out where a model of this convention always has the cache"
            raise self.fail("all caches are optional: any model would fit", "cache", hint)

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
        update = self.choice(table, "update", path, UPDATES, "update rule") or None
        present_optional = self.flag(table, "present-optional", path)
        if present_optional and not present:
            raise self.fail("there is no present that could be missing", f"{path}.present-optional")
        return cache_from_specs(
            name, past, present, where=self.place(path), init=float(init), update=update,
            optional=self.flag(table, "optional", path), present_optional=present_optional,
        )  # fmt: skip

    def sentences(self, table: Table, key: str, path: str) -> list[TensorSpec]:
        texts = self.strings(table, key, path)
        single = isinstance(table.get(key), str)
        places = [f"{path}.{key}" + ("" if single else f"[{index}]") for index in range(len(texts))]
        specs = [parse_tensor(text, where=self.place(place)) for text, place in zip(texts, places, strict=True)]
        dims = self.dims(table, f"{key}-dims", path, [spec.layout for spec in specs])
        return [TensorSpec(spec.template, spec.layout, dims) for spec in specs]

    def dims(self, table: Table, key: str, path: str, layouts: Iterable[Layout]) -> dict[str, str]:
        """Returns the names of symbolic dims: those that stand here, and those that hold everywhere."""
        dims = self.texts(table, key, path)
        items = [show_item(item) for layout in layouts for item in layout.items if item]
        for item in dims:
            if item not in items:
                hint = f"there are {', '.join(dict.fromkeys(items))}" if items else ""
                raise self.fail(f"no layout here has a dimension `{item}`", f"{path}.{key}.{item}", hint)
        self.met.update(items)
        return {**{item: self.common[item] for item in items if item in self.common}, **dims}

    def port(self, table: Table, path: str) -> PortSpec:
        self.allow(table, _PORT, path)
        self.string(table, "role", path)
        role = self.choice(table, "role", path, ROLES, "role")
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

    def sign(self, table: Table, path: str) -> Sign:
        self.allow(table, _SIGN, path)
        if not table.keys() & {"input", "output", "absent"}:
            raise self.fail("a sign is an input, an output, or one that is absent", path)
        given, handed, absent, dtype = (self.pattern(table, key, path) for key in _SIGN[:4])
        rank, least = (self.number(table, key, path) for key in _SIGN[4:])
        return Sign(given, handed, absent, dtype, rank, least)

    def pattern(self, table: Table, key: str, path: str) -> str | None:
        if key not in table:
            return None
        text = self.string(table, key, path)
        try:
            re.compile(text)
        except re.error as error:
            raise self.fail(f"this is no regular expression: {error}", join(path, key)) from None
        return text

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
        self.allow(table, ("set", "copy", "derive", "needed"), "metadata")
        return MetadataSpec(
            self.texts(table, "set", "metadata"),
            self.texts(table, "copy", "metadata"),
            self.expressions(self.table(table, "derive", "metadata"), "metadata.derive"),
            self.strings(table, "needed", "metadata"),
        )

    # Contradictions.

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
