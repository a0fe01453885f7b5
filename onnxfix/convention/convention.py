"""What a convention says: the caches of a model, its other ports, their order and the metadata that goes with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from onnxfix.convention.expression import Expression
from onnxfix.convention.layout import Layout, parse_layout
from onnxfix.convention.template import Template, parse_template
from onnxfix.errors import ConventionError, LayoutError

UPDATES = ("append", "window", "delta", "in-place")
ROLES = (
    "features",
    "tokens",
    "positions",
    "offset",
    "mask",
    "lengths",
    "cache-length",
    "flag",
    "rate",
    "output",
    "other",
)
ORDERS: Mapping[str, tuple[str, ...]] = {"by layer": ("layer", "cache"), "by kind": ("cache", "kv", "hc", "layer")}


@dataclass(frozen=True)
class TensorSpec:
    """One sentence `NAME: LAYOUT`: tensors whose names say the labels of some axes and whose dims hold the others.

    Attributes:
        template: The name with its holes.
        layout: The dims.
        dims: Names for symbolic dims, by axis or group as the layout writes it (`time`, `(batch head)`).
    """

    template: Template
    layout: Layout
    dims: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.template}: {self.layout}"

    @property
    def axes(self) -> frozenset[str]:
        """All axes: those in the name and those in the layout."""
        return frozenset(self.template.axes) | frozenset(self.layout.axes)


@dataclass(frozen=True)
class CacheSpec:
    """One cache: a logical array with named axes, and the tensors that it is spread over.

    Attributes:
        name: What the convention calls it (`attention`); caches of two conventions meet by name, then by axes.
        past: The inputs. More than one where key and value lie differently.
        present: The outputs, paired with `past` by position; empty for a cache that is only read.
        init: The value that fills the first cache.
        update: How the present follows from the past, one of `UPDATES`; None where it is not said.
        optional: Whether a model of this convention may lack the cache.
    """

    name: str
    past: tuple[TensorSpec, ...]
    present: tuple[TensorSpec, ...]
    init: float = 0.0
    update: str | None = None
    optional: bool = False

    @property
    def axes(self) -> frozenset[str]:
        """All axes of the logical array."""
        return self.past[0].axes


@dataclass(frozen=True)
class PortSpec:
    """A port that is no cache.

    Attributes:
        role: What it is for, one of `ROLES`.
        name: Its name in the graph.
        layout: Its dims.
        dtype: numpy's name of the element type; None where any is right.
        feed: What to feed when the model is driven, an `Expression` for a constant; None: what its role says.
        optional: Whether a model of this convention may lack the port.
    """

    role: str
    name: str
    layout: Layout
    dtype: str | None = None
    feed: Expression | None = None
    optional: bool = False


@dataclass(frozen=True)
class MetadataSpec:
    """What a convention writes into `metadata_props`.

    Attributes:
        set: Fixed values, by key.
        copy: Keys whose values are taken from other keys of the source.
        derive: Keys whose values are expressions over axis sizes and metadata.
    """

    set: Mapping[str, str] = field(default_factory=dict)
    copy: Mapping[str, str] = field(default_factory=dict)
    derive: Mapping[str, Expression] = field(default_factory=dict)


@dataclass(frozen=True)
class Convention:
    """How models of one origin show their caches, and all else that their runtimes rely on.

    Attributes:
        name: The name users type; empty for ad hoc sentences.
        description: One line for people.
        source: Where the convention is written down (repository and path).
        caches: The caches; at least one.
        inputs, outputs: The other ports that the convention knows, by role.
        sizes: Sizes that the layouts leave open, as expressions over metadata and other sizes. The key is an axis
            (`head`), or cache and axis (`attention.time`).
        input_order, output_order: Port and cache names in the order that the runtime expects; empty: as they come.
        cache_order: How the tensors of caches follow each other, from slow to fast: axis names and the word `cache`;
            empty: cache by cache, each as its template writes the axes.
        metadata: What to write into `metadata_props`.
        successor: The convention that replaced this one upstream; None if there is none.
    """

    name: str
    description: str
    source: str
    caches: tuple[CacheSpec, ...]
    inputs: tuple[PortSpec, ...] = ()
    outputs: tuple[PortSpec, ...] = ()
    sizes: Mapping[str, Expression] = field(default_factory=dict)
    input_order: tuple[str, ...] = ()
    output_order: tuple[str, ...] = ()
    cache_order: tuple[str, ...] = ()
    metadata: MetadataSpec = field(default_factory=MetadataSpec)
    successor: str | None = None

    def __str__(self) -> str:
        return self.name or "; ".join(
            f"{past} -> {present.template}" if present else str(past) for past, present in self._pairs()
        )

    def _pairs(self) -> list[tuple[TensorSpec, TensorSpec | None]]:
        return [
            (past, cache.present[index] if cache.present else None)
            for cache in self.caches
            for index, past in enumerate(cache.past)
        ]

    def cache(self, name: str) -> CacheSpec | None:
        """Returns the cache of that name; None if there is none."""
        return next((cache for cache in self.caches if cache.name == name), None)


def parse_tensor(text: str, *, where: str = "") -> TensorSpec:
    """Parses one sentence `NAME: LAYOUT`.

    Raises:
        LayoutError: It is not of that form, or an axis stands both in the name and in the layout.
    """
    colon = _colon(text, where)
    try:
        head = text[:colon].rstrip()
        template = parse_template(head.lstrip(), whole=text, offset=len(head) - len(head.lstrip()))
        layout = parse_layout(text[colon + 1 :], whole=text, offset=colon + 1)
    except LayoutError as error:
        error.where = where
        raise
    for axis in template.axes:
        if axis in layout.axes:
            start = text.index(axis, colon)
            message = f"the axis `{axis}` is already spread over the names"
            raise LayoutError(message, text=text, span=(start, start + len(axis)), where=where)
    return TensorSpec(template, layout)


def _colon(text: str, where: str) -> int:
    depth = 0
    found = -1
    for index, letter in enumerate(text):
        depth += (letter == "{") - (letter == "}")
        if letter == ":" and depth == 0:
            found = index
    if found < 0:
        hint = "a sentence is NAME: LAYOUT, for example `att_cache: layer head time (kv dim)`"
        raise LayoutError(
            "a `:` between name and layout is missing", text=text, span=(len(text), len(text)), where=where, hint=hint
        )
    return found


def parse_sentence(text: str, *, where: str = "") -> tuple[TensorSpec, TensorSpec | None]:
    """Parses `PAST -> PRESENT: LAYOUT` or, for a cache that is only read, `PAST: LAYOUT`.

    >>> past, present = parse_sentence("cache -> new_cache: layer batch head time (kv dim)")
    >>> str(past), str(present)
    ('cache: layer batch head time (kv dim)', 'new_cache: layer batch head time (kv dim)')

    Raises:
        LayoutError: The text is not of that form; the error carries the place.
    """
    arrow = text.find("->")
    if arrow < 0:
        return parse_tensor(text, where=where), None
    colon = _colon(text, where)
    if colon < arrow:
        message = "the layout follows once, after the second name"
        raise LayoutError(message, text=text, span=(colon, arrow), where=where, hint="PAST -> PRESENT: LAYOUT")
    # Blanks keep every place in the text where it was, so that carets point into what the user wrote.
    past = parse_tensor(text[:arrow] + " " * (colon - arrow) + text[colon:], where=where)
    present = parse_tensor(" " * (arrow + 2) + text[arrow + 2 :], where=where)
    return past, present


def cache_from_specs(
    name: str, past: Sequence[TensorSpec], present: Sequence[TensorSpec], *, where: str,
    init: float = 0.0, update: str | None = None, optional: bool = False,
) -> CacheSpec:  # fmt: skip
    """Returns a cache after checking that its sentences describe one logical array.

    Raises:
        ConventionError: The sentences have different axes, spread different axes over names, fix the same labels
            twice, or past and present do not pair up.
    """
    if present and len(present) != len(past):
        raise ConventionError(f"{len(past)} past and {len(present)} present sentences do not pair up", where=where)
    for key, specs in (("past", past), ("present", present)):
        for spec in specs:
            if spec.axes != past[0].axes:
                odd = ", ".join(f"`{axis}`" for axis in sorted(spec.axes ^ past[0].axes))
                raise ConventionError(f"`{spec}` and `{past[0]}` differ in the axes {odd}", where=f"{where}.{key}")
            if set(spec.template.axes) != set(specs[0].template.axes):
                raise ConventionError(
                    f"`{spec}` and `{specs[0]}` spread different axes over names", where=f"{where}.{key}"
                )
        fixed = [tuple(sorted(spec.template.fixed.items())) for spec in specs]
        if len(set(fixed)) != len(fixed):
            raise ConventionError(
                "two sentences describe the same tensors",
                where=f"{where}.{key}",
                hint="fix a label in each, for example {kv=key} and {kv=value}",
            )
    for one, other in zip(past, present, strict=False):
        if set(one.template.axes) != set(other.template.axes) or one.template.fixed != other.template.fixed:
            raise ConventionError(f"the holes of `{one.template}` and `{other.template}` differ", where=where)
    return CacheSpec(name, tuple(past), tuple(present), init, update, optional)


def convention_from_sentences(sentences: Sequence[str], *, where: str = "") -> Convention:
    """Returns the convention that ad hoc sentences describe, one a cache.

    Sentences that fix different labels of the same axes (`{kv=key}`, `{kv=value}`) describe one cache together.

    Raises:
        LayoutError: A sentence does not parse.
        ConventionError: The sentences contradict each other.
    """
    groups: list[list[tuple[TensorSpec, TensorSpec | None]]] = []
    for sentence in sentences:
        pair = parse_sentence(sentence, where=where)
        home = next((group for group in groups if _is_same_cache(group, pair[0])), None)
        if home is None:
            groups.append([pair])
        else:
            home.append(pair)
    caches = []
    for index, group in enumerate(groups):
        place = where or "sentence"
        present = [spec for _, spec in group if spec is not None]
        name = f"cache{index + 1}" if len(groups) > 1 else "cache"
        caches.append(cache_from_specs(name, [past for past, _ in group], present, where=place))
    return Convention("", "ad hoc", "", tuple(caches))


def _is_same_cache(group: list[tuple[TensorSpec, TensorSpec | None]], spec: TensorSpec) -> bool:
    fixed = spec.template.fixed
    return bool(fixed) and all(
        past.template.fixed.keys() == fixed.keys() and past.template.fixed != fixed and past.axes == spec.axes
        for past, _ in group
    )
