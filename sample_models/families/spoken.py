"""How a network is exported under conventions that sentences say, and how it is driven."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from agreement import Arrays, Group
from einops import rearrange
from exporting import Recipe, for_dynamo
from networks.spoken import Labels, Spelling, Spoken, SpokenNetwork, show, spell_all
from torch import Tensor

FOLDER = "spoken"
EXPORTERS_APART = 1e-5  # the two exporters spell norms with other operators
Feeds = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Interface:
    """The ports of one convention, as far as the network's own do not say it.

    Attributes:
        name: The convention's; it ends the name of the file.
        sentences: What each cache looks like; their order is that of the caches.
        order: How the tensors of caches follow each other, from slow to fast.
        past_dims, present_dims: Names for dims that are not fixed, as a sentence writes the dim, or cache and dim.
        ports: Other names for ports that are no caches.
        last: Those that come after the caches.
        dtypes: Other types for these, by the port's own name.
        dynamo: Whether the dynamo exporter writes it, too.
    """

    name: str
    sentences: Mapping[str, Sequence[str]]
    order: Sequence[str] = ("cache", "layer", "kv")
    past_dims: Mapping[str, str] = field(default_factory=dict)
    present_dims: Mapping[str, str] = field(default_factory=dict)
    ports: Mapping[str, str] = field(default_factory=dict)
    last: Sequence[str] = ()
    dtypes: Mapping[str, torch.dtype] = field(default_factory=dict)
    dynamo: bool = True


@dataclass(frozen=True)
class Subject:
    """A network with all that it is exported and driven with.

    Attributes:
        name: What the names of its files begin with.
        network: It says its `caches`, and takes `given` and the parts of its caches.
        given: The arguments that are no caches, by port.
        outputs: The ports of what it gives.
        axes: The dims of these ports that are not fixed.
        state: The parts of its caches; what they are exported with, and driven from.
        limits: Of the dims that are free, by axis of caches or by name.
        ticks: What it is fed at each call, by port.
    """

    name: str
    network: SpokenNetwork
    given: Mapping[str, Tensor]
    outputs: Sequence[str]
    axes: Mapping[str, Mapping[int, str]]
    state: Mapping[str, Tensor]
    limits: Mapping[str, tuple[int, int]]
    ticks: Sequence[Feeds]
    opset: int = 17
    metadata: Mapping[str, str] = field(default_factory=dict)

    def spellings(self, interface: Interface) -> list[Spelling]:
        """Gives the tensors of a convention."""
        return spell_all(self.network.caches, interface.sentences, interface.order)


def recipes(subject: Subject, interfaces: Sequence[Interface]) -> Iterator[Recipe]:
    """Gives the recipes of a network under all its conventions, by both exporters."""
    for interface in interfaces:
        recipe = make_recipe(subject, interface)
        yield recipe
        if interface.dynamo:
            limits = {interface.past_dims.get(name, name): limit for name, limit in subject.limits.items()}
            yield for_dynamo(recipe, limits)


def make_recipe(subject: Subject, interface: Interface) -> Recipe:
    """Gives the recipe of a network under one convention."""
    spellings = subject.spellings(interface)
    handed = [one for one in spellings if one.present]
    rename = {**{name: name for name in (*subject.given, *subject.outputs)}, **interface.ports}
    axes: dict[str, Mapping[int, str]] = {rename[name]: dims for name, dims in subject.axes.items()}
    axes |= {one.past: named_dims(one, interface.past_dims) for one in spellings}
    axes |= {one.present: named_dims(one, {**interface.past_dims, **interface.present_dims}) for one in handed}
    given = {name: value.to(interface.dtypes.get(name, value.dtype)) for name, value in subject.given.items()}
    last = {name: given.pop(name) for name in interface.last}
    past = tuple(one.pack(subject.state) for one in spellings)
    return Recipe(
        name=f"{FOLDER}/{subject.name}_{interface.name}",
        network=Spoken(subject.network, spellings),
        arguments=(tuple(given.values()), past, *([tuple(last.values())] if last else ())),
        inputs=(*(rename[name] for name in given), *(one.past for one in spellings), *(rename[name] for name in last)),
        outputs=(*(rename[name] for name in subject.outputs), *(one.present for one in handed)),
        opset=subject.opset,
        dynamic_axes={name: dims for name, dims in axes.items() if dims},
        metadata=subject.metadata,
        short_names=True,
    )


def named_dims(one: Spelling, names: Mapping[str, str]) -> dict[int, str]:
    """Gives the names of the dims that have one; that of a certain cache comes before that of any."""
    found = {}
    for place, item in enumerate(one.items):
        shown = show((item,))
        name = names.get(f"{one.cache.name}.{shown}", names.get(shown))
        if name:
            found[place] = name
    return found


@dataclass(frozen=True)
class SpokenSpeaker:
    """Speaks a convention in numpy: one einops pattern from the parts of a cache to the tensor, and one back."""

    spellings: Sequence[Spelling]
    interface: Interface
    fixed: Arrays

    def ask(self, tick: Feeds, state: Arrays) -> Arrays:
        """Gives the feeds of one call."""
        parts = {**self.fixed, **state}
        others = {}
        for name, value in tick.items():
            dtype = self.interface.dtypes.get(name)
            others[self.interface.ports.get(name, name)] = torch.tensor(value, dtype=dtype).numpy() if dtype else value
        return {**others, **{one.past: spell(one, parts) for one in self.spellings}}

    def hear(self, fetches: Arrays) -> tuple[Arrays, Arrays]:
        """Gives outputs and next parts."""
        state: dict[str, np.ndarray] = {}
        names = {new: old for old, new in self.interface.ports.items()}
        others = dict(fetches)
        for one in self.spellings:
            if one.present:
                state |= read(one, others.pop(one.present))
        return {names.get(name, name): value for name, value in others.items()}, state


def open_labels(one: Spelling) -> tuple[list[Labels], str]:
    """Gives the labels of the parts that lie within a tensor, and the pattern of a part in front of the others."""
    axes = [axis for axis in one.cache.labels if axis not in one.labels]
    return list(one.cache.parts(one.labels)), " ".join([*axes, one.cache.layout])


def spell(one: Spelling, parts: Arrays) -> np.ndarray:
    """Writes a tensor."""
    labels, apart = open_labels(one)
    stacked = np.stack([parts[one.cache.key(own)] for own in labels])
    sizes = {axis: len(all_) for axis, all_ in one.cache.labels.items() if axis not in one.labels}
    array = stacked.reshape(*sizes.values(), *stacked.shape[1:])
    return rearrange(array, f"{apart} -> {written(one)}")


def read(one: Spelling, tensor: np.ndarray) -> dict[str, np.ndarray]:
    """Reads a tensor."""
    labels, apart = open_labels(one)
    grouped = {axis for item in one.items if len(item) > 1 for axis in item}
    known = {**one.cache.sizes, **{axis: len(all_) for axis, all_ in one.cache.labels.items()}}
    array = rearrange(tensor, f"{written(one)} -> {apart}", **{axis: known[axis] for axis in grouped & known.keys()})
    rank = len(one.cache.layout.split())
    rows = array.reshape(len(labels), *array.shape[array.ndim - rank :])
    return {one.cache.key(own): row for own, row in zip(labels, rows, strict=True)}


def written(one: Spelling) -> str:
    """Writes the dims of a tensor as einops reads them."""
    return " ".join(show((item,)) or "1" for item in one.items)


def group(subject: Subject, interfaces: Sequence[Interface]) -> Group[Feeds]:
    """Gives one group: all conventions by both exporters."""
    by_name = {f"{FOLDER}/{subject.name}_{interface.name}": interface for interface in interfaces}
    by_name |= {f"{name}_dynamo": interface for name, interface in by_name.items() if interface.dynamo}
    fixed_keys = {cache.key(labels) for cache in subject.network.caches if cache.is_fixed for labels in cache.parts({})}
    state = {key: part.numpy() for key, part in subject.state.items()}
    fixed = {key: part for key, part in state.items() if key in fixed_keys}
    speakers = {
        name: SpokenSpeaker(subject.spellings(interface), interface, fixed) for name, interface in by_name.items()
    }
    tolerance = {name: EXPORTERS_APART for name in speakers if name.endswith("_dynamo")}
    begin = {key: part for key, part in state.items() if key not in fixed_keys}
    return Group(subject.name, speakers, subject.ticks, begin, tolerance)
