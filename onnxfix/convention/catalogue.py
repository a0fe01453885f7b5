"""The library for people: in groups, searched by words, and what a convention says in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from onnxfix.convention.convention import ORDERS, CacheSpec, Convention, PortSpec
from onnxfix.convention.load import library, refused
from onnxfix.convention.sign import Sign

GROUPS: Mapping[str, str] = {
    "decoder": "Language models",
    "seq2seq": "Encoders and decoders",
    "speech": "Streaming speech",
    "small": "Small recurrent networks",
}
"""Titles for the first word of a family, in the order in which they are shown."""
_BINDS = {
    "name": "by their names",
    "position": "by their position",
    "suffix": "by how their names end",
    "sorted name": "by their names, sorted",
}


def catalogue() -> list[Convention]:
    """Returns all conventions that ship with onnxfix, those that are refused last."""
    return [*library().values(), *refused().values()]


def grouped(conventions: Iterable[Convention]) -> list[tuple[str, list[Convention]]]:
    """Returns conventions under the titles of their groups, in each first those that convert."""
    groups: dict[str, list[Convention]] = {}
    for one in conventions:
        groups.setdefault(one.family.split("/")[0], []).append(one)
    ranks = {key: index for index, key in enumerate(GROUPS)}
    keys = sorted(groups, key=lambda key: (ranks.get(key, len(ranks)), key))
    return [(GROUPS.get(key, key or "Others"), sorted(groups[key], key=lambda one: bool(one.refused))) for key in keys]


def search(words: Sequence[str]) -> list[Convention]:
    """Returns the conventions that speak of every word: in names of ports, description, source, family or consumer."""
    wanted = [word.casefold() for word in words]
    return [one for one in catalogue() if all(word in _text(one) for word in wanted)]


def _text(one: Convention) -> str:
    tensors = [str(tensor.template) for cache in one.caches for tensor in (*cache.past, *cache.present)]
    ports = [port.name for port in (*one.inputs, *one.outputs)]
    texts = (one.name, one.family, one.description, one.source, one.consumer, one.refused, one.needs, *tensors, *ports)
    return "\n".join(texts).casefold()


def sentences_of(cache: CacheSpec) -> list[str]:
    """Returns what a user writes after `--to`; past and present apart where they lie differently."""
    if not cache.present:
        return [str(past) for past in cache.past]
    found = []
    for past, present in zip(cache.past, cache.present, strict=True):
        if past.layout == present.layout:
            found.append(f"{past.template} -> {present.template}: {past.layout}")
        else:
            found += [str(past), f"-> {present}"]
    return found


def traits_of(cache: CacheSpec) -> list[str]:
    """Returns what else is said of a cache."""
    traits = {
        "optional": cache.optional,
        "outputs optional": cache.present_optional,
        cache.update or "": bool(cache.update),
        f"starts from {cache.init:g}": bool(cache.init),
    }
    return [trait for trait, is_so in traits.items() if is_so]


def port_text(port: PortSpec) -> str:
    """Returns a port that is no cache as its convention writes it."""
    return f"{port.name}: {port.layout}" if port.layout.items else port.name


def facts_of(one: Convention) -> list[tuple[str, str]]:
    """Returns all that a convention says besides its caches and ports: what it is about, and the words for it."""
    orders = {"inputs": one.input_order, "outputs": one.output_order}
    facts = [
        ("family", one.family),
        ("run by", one.consumer),
        ("finds ports", _BINDS.get(one.binds, "")),
        ("source", one.source),
        ("replaced by", one.successor or ""),
        ("refused", one.refused),
        ("what helps", one.needs),
        *(("recognised by", _sign_text(sign)) for sign in one.signs),
        *((f"order of {kind}", ", ".join(order)) for kind, order in orders.items()),
        ("order of caches", _order_text(one.cache_order)),
        ("names of dims", ", ".join(f"{item} is {name}" for item, name in _dim_names(one))),
        ("sizes", ", ".join(f"{axis} is {text}" for axis, text in one.sizes.items())),
        ("metadata", _metadata_text(one)),
    ]
    return [(key, text) for key, text in facts if text]


def _order_text(order: tuple[str, ...]) -> str:
    return next((name for name, axes in ORDERS.items() if axes == order), ", then ".join(order))


def _dim_names(one: Convention) -> list[tuple[str, str]]:
    """Returns the names of symbolic dims, each once, with the side where past and present have different ones."""
    found: dict[tuple[str, str], None] = {}
    for cache in one.caches:
        past, present = cache.past[0].dims, cache.present[0].dims if cache.present else {}
        for item in (*past, *(item for item in present if item not in past)):
            before, after = past.get(item), present.get(item)
            if before == after or before is None or after is None:
                found[item, before or after or ""] = None
            else:
                found[item, f"{before} before and {after} after a call"] = None
    for port in (*one.inputs, *one.outputs):
        found.update(dict.fromkeys(port.dims.items()))
    return list(found)


def _metadata_text(one: Convention) -> str:
    metadata = one.metadata
    texts = [f"{key} = {value}" for key, value in metadata.set.items()]
    texts += [f"{key} from {value}" for key, value in metadata.copy.items()]
    texts += [f"{key} = {value}, if it is missing" for key, value in metadata.derive.items()]
    texts += [f"needed are {', '.join(metadata.needed)}"] if metadata.needed else []
    return "; ".join(texts)


def _sign_text(sign: Sign) -> str:
    names = {"an input": sign.input, "an output": sign.output, "no output": sign.absent}
    texts = [f"{kind} called {pattern}" for kind, pattern in names.items() if pattern is not None]
    texts += [f"of type {sign.dtype}"] if sign.dtype is not None else []
    texts += [f"with {sign.rank} dims"] if sign.rank is not None else []
    return " ".join([*texts, f"of at least {sign.least} values"] if sign.least is not None else texts)
