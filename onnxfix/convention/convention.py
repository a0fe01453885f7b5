"""What a convention says: the caches of a model, its other ports, their order and the metadata that goes with them."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from onnxfix.convention.expression import Expression
from onnxfix.convention.layout import Layout, parse_layout
from onnxfix.convention.sign import Sign
from onnxfix.convention.template import LABELS, Template, check_braces, label_text, parse_template
from onnxfix.errors import ConventionError, LayoutError

UPDATES = ("append", "window", "delta", "in-place", "fixed")
BINDS = ("name", "position", "suffix", "sorted name")
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
_SENTENCE = "a sentence is NAME: LAYOUT or PAST -> PRESENT: LAYOUT, for example `cache -> r_cache: layer time (kv dim)`"
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
        update: How the present follows from the past, one of `UPDATES`; None where it is not said. A `fixed` cache is
            only read, even where it is handed out again.
        optional: Whether a model of this convention may lack the cache.
        present_optional: Whether a model of this convention may lack the outputs.
    """

    name: str
    past: tuple[TensorSpec, ...]
    present: tuple[TensorSpec, ...]
    init: float = 0.0
    update: str | None = None
    optional: bool = False
    present_optional: bool = False

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
        dims: Names for symbolic dims, as in `TensorSpec`.
    """

    role: str
    name: str
    layout: Layout
    dtype: str | None = None
    feed: Expression | None = None
    optional: bool = False
    dims: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class MetadataSpec:
    """What a convention writes into `metadata_props`.

    Attributes:
        set: Fixed values, by key.
        copy: Keys whose values, where the source lacks them, are taken from other keys.
        derive: Keys whose values, where the source lacks them, are expressions over sizes of the target's caches
            (`attention.head`) and metadata.
        needed: Keys without which the programs that run such models stop.
    """

    set: Mapping[str, str] = field(default_factory=dict)
    copy: Mapping[str, str] = field(default_factory=dict)
    derive: Mapping[str, Expression] = field(default_factory=dict)
    needed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Convention:
    """How models of one origin show their caches, and all else that their runtimes rely on.

    Attributes:
        name: The name users type; empty for ad hoc sentences.
        description: One line for people.
        source: Where the convention is written down (repository and path).
        caches: The caches; at least one, but for a convention that is refused.
        inputs, outputs: The other ports that the convention knows, by role.
        sizes: Sizes that the layouts leave open, as expressions over metadata and other sizes. The key is an axis
            (`head`), or cache and axis (`attention.time`).
        input_order, output_order: Port and cache names in the order that the runtime expects; empty: as they come.
        cache_order: How the tensors of caches follow each other, from slow to fast: axis names and the word `cache`;
            empty: cache by cache, each as its template writes the axes.
        metadata: What to write into `metadata_props`.
        successor: The convention that replaced this one upstream; None if there is none.
        family: What kind of network it is for, from the general to the special (`speech/wenet`); empty where that is
            not said.
        consumer: The programs that run such models.
        binds: How these find their ports, one of `BINDS`; empty where that is not known.
        refused: Why models of this convention are recognised and not converted; empty if they are converted.
        needs: What would help instead.
        signs: What a model of a refused convention is recognised by, besides its caches; all must be there.
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
    family: str = ""
    consumer: str = ""
    binds: str = ""
    refused: str = ""
    needs: str = ""
    signs: tuple[Sign, ...] = ()

    def __str__(self) -> str:
        return self.name or "; ".join(self.sentences)

    @property
    def sentences(self) -> tuple[str, ...]:
        """The caches as ad hoc sentences, as far as these can say it."""
        order = next((f", {name}" for name, axes in ORDERS.items() if axes == self.cache_order), "")
        found = []
        for cache in self.caches:
            for index, past in enumerate(cache.past):
                present = cache.present[index] if cache.present else None
                if present is None:
                    found.append(str(past))
                elif present.layout == past.layout:
                    found.append(f"{past.template} -> {present}")
                else:
                    found.append(f"{past} -> {present}")
        return (*found[:-1], found[-1] + order) if found else ()

    def cache(self, name: str) -> CacheSpec | None:
        """Returns the cache of that name; None if there is none."""
        return next((cache for cache in self.caches if cache.name == name), None)


def _sentence(past: TensorSpec, present: TensorSpec | None) -> str:
    if present is None:
        return str(past)
    return f"{past.template if past.layout == present.layout else past} -> {present}"


def parse_tensor(text: str, *, where: str = "") -> TensorSpec:
    """Parses one sentence `NAME: LAYOUT`.

    Raises:
        LayoutError: It is not of that form, or an axis stands both in the name and in the layout.
    """
    try:
        colon = _colon(text)
        return _tensor(text, (0, colon), colon + 1)
    except LayoutError as error:
        error.where = where
        raise


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
    try:
        colon = _colon(text)
        early = re.search(r":\s+\S", text[:arrow])
        if early or colon < arrow:
            span = (early.start() if early else colon, arrow)
            raise LayoutError("the layout follows once, after the second name", text=text, span=span, hint=_SENTENCE)
        return _tensor(text, (0, arrow), colon + 1), _tensor(text, (arrow + 2, colon), colon + 1)
    except LayoutError as error:
        error.where = where
        raise


def _tensor(text: str, name: tuple[int, int], layout: int) -> TensorSpec:
    """Parses a name that stands at `name` in the text, and the layout that begins at `layout`."""
    start, stop = name
    word = text[start:stop]
    if (arrow := word.find("->")) >= 0:
        span = (start + arrow, start + arrow + 2)
        raise LayoutError("there is no place for `->` here", text=text, span=span, hint=_SENTENCE)
    template = parse_template(word.strip(), whole=text, offset=start + len(word) - len(word.lstrip()))
    return TensorSpec(template, parse_layout(text[layout:], whole=text, offset=layout, taken=template.axes))


def _colon(text: str) -> int:
    """Returns where the last `:` stands outside of braces."""
    depth = 0
    found = -1
    for index, letter in enumerate(text):
        depth += (letter == "{") - (letter == "}")
        if letter == ":" and depth == 0:
            found = index
    if found < 0:
        check_braces(text, whole=text, offset=0)
        span = (len(text), len(text) + 1)
        raise LayoutError("a `:` and a layout are missing", text=text, span=span, hint=_SENTENCE)
    return found


def cache_from_specs(
    name: str, past: Sequence[TensorSpec], present: Sequence[TensorSpec], *, where: str,
    init: float = 0.0, update: str | None = None, optional: bool = False, present_optional: bool = False,
) -> CacheSpec:  # fmt: skip
    """Returns a cache after checking that its sentences describe one logical array.

    Raises:
        ConventionError: The sentences have different axes, spread different axes over names, do not fix every label
            once, or past and present do not pair up.
    """
    if present and len(present) != len(past):
        raise ConventionError(f"{len(past)} past and {len(present)} present sentences do not pair up", where=where)
    for key, specs in (("past", past), ("present", present)):
        for spec in specs:
            if spec.axes != past[0].axes:
                odd = ", ".join(f"`{axis}`" for axis in sorted(spec.axes ^ past[0].axes))
                raise ConventionError(f"`{spec}` and `{past[0]}` differ in the axes {odd}", where=f"{where}.{key}")
            if set(spec.template.axes) != set(past[0].template.axes):
                message = f"`{spec}` and `{past[0]}` spread different axes over names"
                raise ConventionError(message, where=f"{where}.{key}")
        _check_fixed(specs, f"{where}.{key}")
    for one, other in zip(past, present, strict=False):
        if one.template.fixed != other.template.fixed:
            message = f"the holes of `{one.template}` and `{other.template}` are fixed to different labels"
            raise ConventionError(message, where=where)
    return CacheSpec(name, tuple(past), tuple(present), init, update, optional, present_optional)


def _check_fixed(specs: Sequence[TensorSpec], where: str) -> None:
    """Several sentences of one cache must fix the same axes, each to other labels, and leave no label out."""
    if not specs:
        return
    fixed = [spec.template.fixed for spec in specs]
    axes = list(fixed[0])
    if any(labels.keys() != fixed[0].keys() for labels in fixed) or (len(specs) > 1 and not axes):
        hint = "fix a label in each, for example {kv=key} and {kv=value}"
        raise ConventionError("two sentences describe the same tensors", where=where, hint=hint)
    rows = [tuple(labels[axis] for axis in axes) for labels in fixed]
    for index, row in enumerate(rows):
        if row in rows[:index]:
            raise ConventionError(f"two sentences describe the same tensors: again `{specs[index]}`", where=where)
    values = [sorted({*column, *range(len(LABELS.get(axis, ())))}) for axis, *column in zip(axes, *rows, strict=True)]
    for wanted in itertools.product(*values):
        if wanted not in rows:
            text = ", ".join(f"{axis} {label_text(axis, label)}" for axis, label in zip(axes, wanted, strict=True))
            raise ConventionError(f"no sentence describes the tensors of {text}", where=where)


def convention_from_sentences(sentences: Sequence[str], *, where: str = "") -> Convention:
    """Returns the convention that ad hoc sentences describe, one a cache.

    Sentences that fix different labels of the same axes (`{kv=key}`, `{kv=value}`) describe one cache together. A
    sentence may end with the order of its ports: `, by layer` or `, by kind`; without it they follow each other as the
    name counts (`{layer}.{kv}` alternates, `{kv}.{layer}` has all keys first).

    >>> convention = convention_from_sentences(["{kv}_{layer} -> r_{kv}_{layer}: batch head time dim, by layer"])
    >>> convention.cache_order
    ('layer', 'cache')

    Raises:
        LayoutError: A sentence does not parse.
        ConventionError: The sentences contradict each other.
    """
    place = where or "sentence"
    groups: list[list[tuple[TensorSpec, TensorSpec | None]]] = []
    orders: set[str] = set()
    for sentence in sentences:
        text, order = _cut_order(sentence, place)
        orders |= {order} if order else set()
        pair = parse_sentence(text, where=where)
        home = next((group for group in groups if _is_same_cache(group, pair[0])), None)
        if home is None:
            groups.append([pair])
        else:
            home.append(pair)
    if len(orders) > 1:
        raise ConventionError(f"ports cannot be both {' and '.join(sorted(orders))}", where=place)
    caches = []
    for index, group in enumerate(groups):
        present = [spec for _, spec in group if spec is not None]
        name = f"cache{index + 1}" if len(groups) > 1 else "cache"
        caches.append(cache_from_specs(name, [past for past, _ in group], present, where=place))
    check_names(caches, [place] * len(caches))
    return Convention("", "ad hoc", "", tuple(caches), cache_order=ORDERS[orders.pop()] if orders else ())


def _cut_order(sentence: str, where: str) -> tuple[str, str]:
    """Splits `..., by layer` off a sentence."""
    found = re.fullmatch(r"(.*\S)\s*,\s*(by\b[^,]*?)\s*", sentence, re.DOTALL)
    if found is None:
        return sentence, ""
    order = " ".join(found[2].split())
    if order not in ORDERS:
        hint = f"known are {' and '.join(f'`, {known}`' for known in ORDERS)}"
        raise LayoutError(f"`{order}` is no order", text=sentence, span=found.span(2), where=where, hint=hint)
    return found[1], order


def check_names(caches: Sequence[CacheSpec], places: Sequence[str]) -> None:
    """Checks that no two caches have the same tensors.

    Raises:
        ConventionError: Two have; `where` is the place of the second.
    """
    for key in ("past", "present"):
        seen: dict[str, str] = {}
        for cache, place in zip(caches, places, strict=True):
            for spec in cache.past if key == "past" else cache.present:
                if spec.template.text in seen:
                    raise ConventionError(f"two caches have the tensors `{spec.template}`", where=f"{place}.{key}")
                seen[spec.template.text] = place


def _is_same_cache(group: list[tuple[TensorSpec, TensorSpec | None]], spec: TensorSpec) -> bool:
    fixed = spec.template.fixed
    return bool(fixed) and all(
        past.template.fixed.keys() == fixed.keys() and past.template.fixed != fixed and past.axes == spec.axes
        for past, _ in group
    )
