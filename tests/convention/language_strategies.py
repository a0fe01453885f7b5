"""Random layouts, templates, sentences and conventions."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st

from onnxfix.convention.convention import (
    BINDS,
    ROLES,
    UPDATES,
    CacheSpec,
    Convention,
    MetadataSpec,
    PortSpec,
    TensorSpec,
)
from onnxfix.convention.expression import Expression
from onnxfix.convention.layout import Layout
from onnxfix.convention.sign import Sign
from onnxfix.convention.template import LABELS, Template, parse_template

AXES = ("layer", "batch", "head", "time", "kv", "dim", "hc", "a", "x_2", "_", "Channel")
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
WORD = st.text("abcXYZ0189._/-é:", min_size=1, max_size=6)


@st.composite
def layouts(draw: st.DrawFn, axes: tuple[str, ...] = AXES, *, all_axes: bool = False) -> Layout:
    """Gives axes in any order, any neighbours of them in groups, and unit dimensions in between."""
    order = draw(st.permutations(axes))
    left = list(order if all_axes else order[: draw(st.integers(0, len(order)))])
    sizes = draw(st.lists(st.sampled_from([0, 1, 1, 1, 2, 3]), max_size=len(left)))
    items: list[tuple[str, ...]] = []
    for size in sizes:
        items.append(tuple(left[:size]))
        left = left[size:]
    return Layout((*items, *((axis,) for axis in left)))


@st.composite
def holes(draw: st.DrawFn, axis: str) -> str:
    """Gives a hole of any kind."""
    names = LABELS.get(axis)
    count = len(names) if names else draw(st.integers(2, 4))
    spellings = ",".join(draw(st.lists(st.text("abckv_", max_size=3), min_size=count, max_size=count, unique=True)))
    label = draw(st.sampled_from(names)) if names else str(draw(st.integers(0, 12)))
    spelling = draw(st.text("abckv_", max_size=3))
    return (
        "{"
        + draw(st.sampled_from([axis, f"{axis}:{spellings}", f"{axis}={label}", f"{axis}={label}:{spelling}"]))
        + "}"
    )


@st.composite
def templates(draw: st.DrawFn, axes: tuple[str, ...] = ("layer", "kv", "head", "part")) -> Template:
    """Gives words and holes in turn."""
    chosen = draw(st.lists(st.sampled_from(axes), max_size=3, unique=True))
    return parse_template(draw(WORD) + "".join(draw(holes(axis)) + draw(WORD) for axis in chosen))


@st.composite
def tensors(draw: st.DrawFn) -> TensorSpec:
    """Gives one sentence."""
    template = draw(templates())
    return TensorSpec(template, draw(layouts(tuple(axis for axis in AXES if axis not in template.axes))))


EXPRESSIONS = st.sampled_from(["3", "head * 2", "max(chunk_size * left_chunks, 0)", "-(a.time + 1) // 2"]).map(
    Expression.parse
)


@st.composite
def caches(draw: st.DrawFn, name: str, prefix: str) -> CacheSpec:
    """Gives a cache whose names begin with `prefix`; keys and values may lie differently."""
    spread = draw(st.sampled_from([(), ("layer",), ("kv",), ("layer", "kv"), ("kv", "layer")]))
    rest = tuple(axis for axis in ("layer", "batch", "head", "time", "kv", "dim") if axis not in spread)
    labels = ("=key", "=value") if "kv" in spread and draw(st.booleans()) else ("",)
    sides: list[list[TensorSpec]] = []
    for side in ("past", "present"):
        dims: dict[str, str] = {}
        specs = []
        for label in labels:
            ending = ".".join("{" + axis + (label if axis == "kv" else "") + "}" for axis in spread)
            layout = draw(layouts(rest, all_axes=True))
            dims |= {str(Layout((item,))): draw(TEXT) for item in layout.items if item and draw(st.booleans())}
            specs.append((parse_template(f"{prefix}.{side}.{ending}"), layout))
        sides.append([TensorSpec(template, layout, dims) for template, layout in specs])
    past, present = sides
    update = draw(st.sampled_from([None, *UPDATES]))
    kept = present if draw(st.booleans()) else []
    init = draw(st.floats(allow_nan=False))
    may_lack = bool(kept) and draw(st.booleans())
    return CacheSpec(name, tuple(past), tuple(kept), init, update, draw(st.booleans()), may_lack)


@st.composite
def ports(draw: st.DrawFn, prefix: str) -> tuple[PortSpec, ...]:
    """Gives up to three ports."""
    made = []
    for index in range(draw(st.integers(0, 3))):
        layout = draw(layouts())
        made.append(
            PortSpec(
                draw(st.sampled_from(ROLES)),
                f"{prefix}{index}{draw(WORD)}",
                layout,
                draw(st.sampled_from([None, "int64", "float32"])),
                draw(st.none() | EXPRESSIONS),
                draw(st.booleans()),
                {str(Layout((item,))): draw(TEXT) for item in layout.items[:2] if item},
            )
        )
    return tuple(made)


@st.composite
def signs(draw: st.DrawFn) -> Sign:
    """Gives a sign of an input, and whatever else there is."""
    texts = [draw(st.none() | WORD) for _ in range(3)]
    return Sign(draw(WORD), *texts, *(draw(st.none() | st.integers(0, 5000)) for _ in range(2)))


@st.composite
def conventions(draw: st.DrawFn) -> Convention:
    """Gives a convention that uses all that the language can say."""
    made = tuple(draw(caches(f"cache {index}", f"c{index}")) for index in range(draw(st.integers(1, 2))))
    made = (replace(made[0], optional=False), *made[1:])
    inputs, outputs = draw(ports("in")), draw(ports("out"))
    axes = sorted({axis for cache in made for axis in cache.axes})
    spread = sorted({axis for cache in made for axis in cache.past[0].template.axes} | {"cache"})
    sizes = draw(st.dictionaries(st.sampled_from([*axes, *(f"cache 0.{axis}" for axis in made[0].axes)]), EXPRESSIONS))
    texts = st.dictionaries(TEXT, TEXT, max_size=2)
    is_refused = draw(st.booleans())
    return Convention(
        name=draw(WORD),
        description=draw(TEXT),
        source=draw(TEXT),
        caches=made,
        inputs=inputs,
        outputs=outputs,
        sizes=sizes,
        input_order=tuple(draw(st.permutations([spec.name for spec in (*made, *inputs)]))),
        output_order=tuple(draw(st.permutations([spec.name for spec in (*made, *outputs)]))),
        cache_order=tuple(draw(st.permutations(spread))),
        metadata=MetadataSpec(
            draw(texts),
            draw(texts),
            draw(st.dictionaries(TEXT, EXPRESSIONS, max_size=2)),
            tuple(draw(st.lists(TEXT, max_size=2))),
        ),
        successor=draw(st.none() | WORD),
        family=draw(st.sampled_from(["", "decoder", "speech/wenet"])),
        consumer=draw(TEXT),
        binds=draw(st.sampled_from(["", *BINDS])),
        refused=draw(WORD) if is_refused else "",
        needs=draw(TEXT) if is_refused else "",
        signs=tuple(draw(st.lists(signs(), max_size=2))) if is_refused else (),
    )
