"""A guess at the axes of tensors, from their dims."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from onnxfix.convention.signature import Dim
from onnxfix.convention.template import LABELS


class Axes:
    """Names for the axes of tensors that lie alike.

    Attributes:
        columns: The different dims of each axis.
        names: The layout's items so far; empty where there is none yet.
        guesses: The items that the dims alone do not tell.
    """

    def __init__(self, columns: Sequence[tuple[Dim, ...]], spread: set[str]) -> None:
        self.columns = columns
        self.names = [""] * len(columns)
        self.spread = spread
        self.guesses: list[str] = []

    def name(self, batches: Collection[Dim], time: int | None) -> None:
        """Names all axes, the certain ones first.

        Args:
            batches: Names of dims that stand for the batch.
            time: The axis that grows or moves, if that is known.
        """
        if time is not None:
            self.names[time] = "time"
        self._name_batch(batches)
        self._name_time()
        self._name_front()
        self._name_units()
        self._name_rest()

    def _free(self) -> list[int]:
        return [index for index, name in enumerate(self.names) if not name]

    def _guess(self, index: int, name: str) -> None:
        self.names[index] = name
        self.guesses.append(name)

    def _name_batch(self, batches: Collection[Dim]) -> None:
        symbols = [index for index in self._free() if all(_is_batch(dim, batches) for dim in self.columns[index])]
        numbers = [index for index in self._free()[:2] if self.columns[index] in {(1,), *((dim,) for dim in batches)}]
        if symbols:
            self.names[symbols[0]] = "batch"
        elif numbers and len(self.columns) > 1:
            # In a tensor of all layers these come first, as a rule.
            self._guess(numbers[0] if "layer" in self.spread or numbers == [0] else numbers[-1], "batch")

    def _name_time(self) -> None:
        symbols = [index for index in self._free() if all(isinstance(dim, str) for dim in self.columns[index])]
        if "time" not in self.names and len(symbols) == 1 and len(self.columns) > 2:
            self._guess(symbols[0], "time")

    def _name_front(self) -> None:
        """Names what stands in front of all else: both of a kind, or the layers."""
        free = self._free()
        rank = len(self.columns)
        # Two or three axes belong to the tensor of one layer.
        usual = 2 if "time" in self.names or rank < 4 else 3
        if not free or (free[0] > 1) or not (len(free) > usual or "batch" in self.names[free[0] :]):
            return
        kind = {3: "hc", 5: "kv"}.get(rank)
        if kind and self.columns[free[0]] == (2,) and not self.spread & LABELS.keys():
            self._guess(free[0], kind)
        elif "layer" not in self.spread:
            self._guess(free[0], "layer")

    def _name_units(self) -> None:
        for index in self._free():
            if self.columns[index] == (1,):
                self.names[index] = "1"

    def _name_rest(self) -> None:
        free = self._free()
        if "time" in self.names:
            usual = ["head", "dim"] if len(free) != 1 else ["channel" if free[0] < self.names.index("time") else "dim"]
        else:
            usual = {1: ["dim"], 2: ["channel", "time"]}.get(len(free), ["head", "time", "dim"])
        for number, index in enumerate(free[: max(0, len(free) - len(usual))]):
            self._guess(index, f"axis{number}")
        free = self._free()
        for index, name in zip(free, usual[len(usual) - len(free) :], strict=True):
            self._guess(index, name)
        self._pack_keys_and_values()

    def _pack_keys_and_values(self) -> None:
        """Attention remembers keys and values: where nothing tells them apart, they share the last axis."""
        if not self.columns:
            return
        last = self.columns[-1]
        is_even = all(isinstance(dim, int) and dim % 2 == 0 for dim in last)
        if (
            {"head", "time"} <= set(self.names)
            and self.names[-1] == "dim"
            and "kv" not in {*self.spread, *self.names}
            and is_even
        ):
            self.names[-1] = "(kv dim)"
            self.guesses[self.guesses.index("dim")] = "(kv dim)"


def _is_batch(dim: Dim, batches: Collection[Dim]) -> bool:
    return isinstance(dim, str) and (dim in batches or dim.lower() in ("b", "n") or "batch" in dim.lower())
