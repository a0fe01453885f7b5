"""A network under any convention that sentences can say: `PAST -> PRESENT: LAYOUT`, in onnxfix's language.

A network of this kind knows nothing of conventions. It says what its caches are (`caches`), takes their parts, one
tensor for each layer and for key and value, and gives back the next ones. `Spoken` is the module that is exported: it
takes the tensors of the convention apart and puts the next ones together, as one who writes an exporter would: labels
first (`cache[layer]`, `cache.chunk(2, -1)`, and `torch.stack`, `torch.cat`), then the order of the axes that are left.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import TypeAlias

import torch
from einops import rearrange
from torch import Tensor, nn

Labels: TypeAlias = Mapping[str, int]
Items: TypeAlias = tuple[tuple[str, ...], ...]
"""The dims of a tensor, each with the axes that it holds."""

KEY_VALUE = ("key", "value")
HOLE = re.compile(r"\{(\w+)(?:=(\w+))?(?::([\w,]*))?\}")


@dataclass(frozen=True)
class Cache:
    """What a network carries from one call to the next.

    Attributes:
        name: What it is called in the keys of its parts.
        layout: The axes of one part.
        labels: The axes along which it is cut into parts, and their labels.
        sizes: The sizes of axes that a convention may put into one dim with others.
        is_fixed: Whether it is only read.
    """

    name: str
    layout: str
    labels: Mapping[str, Sequence[int]] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)
    is_fixed: bool = False

    def key(self, labels: Labels) -> str:
        """Names one part: `self.1.0` is the key of layer 1."""
        return ".".join([self.name, *(str(labels[axis]) for axis in self.labels)])

    def parts(self, fixed: Labels) -> Iterator[dict[str, int]]:
        """Gives the labels of all parts that have certain labels."""
        choices = ([fixed[axis]] if axis in fixed else all_ for axis, all_ in self.labels.items())
        for labels in product(*choices):
            yield dict(zip(self.labels, labels, strict=True))


class SpokenNetwork(nn.Module):
    """A network that takes other ports and the parts of its caches, and gives outputs and the next parts."""

    caches: Sequence[Cache]


@dataclass(frozen=True)
class Spelling:
    """One tensor of a convention: a cache, or the parts of it that have certain labels.

    Attributes:
        past, present: Its names; a cache that is only read has no `present`.
        cache: The cache.
        labels: The labels that its names spell.
        items: Its dims.
    """

    past: str
    present: str
    cache: Cache
    labels: Labels
    items: Items

    def unpack(self, tensor: Tensor) -> dict[str, Tensor]:
        """Takes the tensor apart."""
        return dict(self._unpack(tensor, self.items, self.labels))

    def _unpack(self, tensor: Tensor, items: Items, labels: Labels) -> Iterator[tuple[str, Tensor]]:
        axis, place = self._next_label(items, labels)
        if axis:
            indices = self.cache.labels[axis]
            is_alone = items[place] == (axis,)
            pieces = [tensor.select(place, i) for i in indices] if is_alone else tensor.chunk(len(indices), place)
            for index, piece in zip(indices, pieces, strict=True):
                yield from self._unpack(piece, without(items, axis), {**labels, axis: index})
            return
        for place in reversed(range(len(items))):
            tensor = tensor if items[place] else tensor.squeeze(place)
        layout = show(items)
        if layout != self.cache.layout:
            tensor = rearrange(tensor, f"{layout} -> {self.cache.layout}", **self._sizes(items))
        yield self.cache.key(labels), tensor

    def pack(self, parts: Mapping[str, Tensor]) -> Tensor:
        """Puts the tensor together."""
        return self._pack(parts, self.items, self.labels)

    def _pack(self, parts: Mapping[str, Tensor], items: Items, labels: Labels) -> Tensor:
        axis, place = self._next_label(items, labels)
        if axis:
            rest = without(items, axis)
            pieces = [self._pack(parts, rest, {**labels, axis: index}) for index in self.cache.labels[axis]]
            return torch.stack(pieces, place) if items[place] == (axis,) else torch.cat(pieces, place)
        tensor = parts[self.cache.key(labels)]
        layout = show(items)
        if layout != self.cache.layout:
            tensor = rearrange(tensor, f"{self.cache.layout} -> {layout}")
        for place in range(len(items)):
            tensor = tensor if items[place] else tensor.unsqueeze(place)
        return tensor

    def _next_label(self, items: Items, labels: Labels) -> tuple[str, int]:
        """Finds the first axis with labels that is still in the tensor; it must be the slow one of its dim."""
        for place, item in enumerate(items):
            for axis in item:
                if axis in self.cache.labels and axis not in labels:
                    assert axis == item[0], f"{self.past}: `{axis}` is not the slow axis of its dim"
                    return axis, place
        return "", 0

    def _sizes(self, items: Items) -> dict[str, int]:
        grouped = {axis for item in items if len(item) > 1 for axis in item}
        return {axis: size for axis, size in self.cache.sizes.items() if axis in grouped}


def without(items: Items, axis: str) -> Items:
    """Takes an axis out of the dims, and its dim with it if it was alone there."""
    rest = (tuple(one for one in item if one != axis) for item in items)
    return tuple(new for new, item in zip(rest, items, strict=True) if new or not item)


def show(items: Items) -> str:
    """Writes dims as einops reads them, without dims of size 1."""
    return " ".join(item[0] if len(item) == 1 else f"({' '.join(item)})" for item in items if item)


def parse(sentence: str, cache: Cache) -> Iterator[Spelling]:
    """Gives the tensors that a sentence speaks of; `{layer}` and `{kv}` spread over their labels.

    `{kv}` is spelled `key` and `value`, `{kv:k,v}` as it says, and `{kv=key}` stands for the keys alone.
    """
    names, _, layout = sentence.rpartition(":")
    past, _, present = names.partition("->")
    found = re.findall(r"\([^)]*\)|\w+", layout)
    items = tuple(() if item == "1" else tuple(item.strip("()").split()) for item in found)
    holes = list(HOLE.finditer(past))
    fixed = {hole[1]: KEY_VALUE.index(hole[2]) for hole in holes if hole[2]}
    seen = set()
    for labels in cache.parts(fixed):
        spelled = {hole[1]: labels[hole[1]] for hole in holes}
        if tuple(spelled.values()) not in seen:
            seen.add(tuple(spelled.values()))
            yield Spelling(fill(past, spelled), fill(present, spelled), cache, spelled, items)


def fill(template: str, labels: Labels) -> str:
    """Fills the holes of a name."""

    def spell(hole: re.Match[str]) -> str:
        axis, fixed, spellings = hole[1], hole[2], hole[3]
        if axis != "kv":
            return str(labels[axis])
        if fixed:
            return fixed if spellings is None else spellings
        return (spellings.split(",") if spellings else KEY_VALUE)[labels[axis]]

    return HOLE.sub(spell, template.strip())


def spell_all(
    caches: Sequence[Cache], sentences: Mapping[str, Sequence[str]], order: Sequence[str] = ("cache",)
) -> list[Spelling]:
    """Gives all tensors of a convention, in the order of `order`: axes and the word `cache`, from slow to fast."""
    by_name = {cache.name: cache for cache in caches}
    places = {name: place for place, name in enumerate(sentences)}
    found = [one for name, own in sentences.items() for sentence in own for one in parse(sentence, by_name[name])]

    def rank(one: Spelling) -> list[int]:
        ranks = {"cache": places[one.cache.name], **one.labels}
        # What has no layer comes after all that have one.
        return [ranks.get(axis, 1 << 16) for axis in order]

    return sorted(found, key=rank)


class Spoken(nn.Module):
    """A network with the ports of a convention: `past` are the tensors, `given` and `last` the ports around them."""

    def __init__(self, network: SpokenNetwork, spellings: Sequence[Spelling]) -> None:
        super().__init__()
        self.network = network
        self.spellings = list(spellings)

    def forward(
        self, given: tuple[Tensor, ...], past: tuple[Tensor, ...], last: tuple[Tensor, ...] = ()
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Runs the network once."""
        parts: dict[str, Tensor] = {}
        for spelling, tensor in zip(self.spellings, past, strict=True):
            parts |= spelling.unpack(tensor)
        outputs, parts = self.network(*given, *last, parts)
        return outputs, tuple(spelling.pack(parts) for spelling in self.spellings if spelling.present)
