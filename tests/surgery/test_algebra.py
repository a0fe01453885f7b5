"""The algebra of data movement holds what numpy says, and finds the short forms that cancelling lives on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxfix.surgery.algebra import Views
from onnxfix.surgery.pattern import refine
from onnxfix.surgery.view import END, Join, Leaf, Move, Slice, View


def evaluate(view: View, arrays: dict[str, np.ndarray]) -> np.ndarray:
    """Carries a view out on arrays; run-time bounds are looked up among them."""
    if isinstance(view, Leaf):
        return arrays[view.name]
    if isinstance(view, Join):
        return np.concatenate([evaluate(part, arrays) for part in view.parts], axis=view.axis)
    if isinstance(view, Slice):
        start, stop = (int(arrays[bound][0]) if isinstance(bound, str) else bound for bound in (view.start, view.stop))
        index = [slice(None)] * len(view.dims)
        index[view.axis] = slice(start, min(stop, END), view.step)
        return evaluate(view.of, arrays)[tuple(index)]
    assert isinstance(view, Move)
    inner = evaluate(view.of, arrays)
    atoms: list[int] = []
    for size, row in zip(inner.shape, view.atoms, strict=True):
        known = int(np.prod([one for one in row if isinstance(one, int)]))
        atoms += [one if isinstance(one, int) else size // known for one in row]
    order = [index for group in view.groups for index in group]
    shape = [int(np.prod([atoms[index] for index in group])) for group in view.groups]
    return inner.reshape(atoms).transpose(order).reshape(shape)


def count(view: View) -> int:
    """How many operators a view takes, each counted once."""
    seen: dict[int, View] = {}
    queue = [view]
    while queue:
        one = queue.pop()
        if id(one) not in seen:
            seen[id(one)] = one
            queue += one.sources
    return sum(not isinstance(one, Leaf) for one in seen.values())


class Pool:
    """Views, and beside each the array that it should hold."""

    def __init__(self) -> None:
        self.views = Views()
        self.arrays: dict[str, np.ndarray] = {"one": np.array([1]), "two": np.array([2]), "back": np.array([-2])}
        self.entries: list[tuple[View, np.ndarray]] = []

    def leaf(self, *shape: int, symbolic: tuple[int, ...] = ()) -> View:
        name = f"x{len(self.arrays)}"
        size = int(np.prod(shape))
        self.arrays[name] = np.arange(size).reshape(shape) + 1000 * len(self.arrays)
        dims = [f"{name}@{axis}" if axis in symbolic else dim for axis, dim in enumerate(shape)]
        self.add(self.views.leaf(name, dims), self.arrays[name])
        return self.entries[-1][0]

    def add(self, view: View, array: np.ndarray) -> None:
        assert len(view.dims) == array.ndim
        for dim, size in zip(view.dims, array.shape, strict=True):
            assert isinstance(dim, str) or dim == size
        self.entries.append((view, array))

    def grow(self, draw: st.DrawFn) -> None:
        view, array = draw(st.sampled_from(self.entries))
        action = draw(
            st.sampled_from(["slice", "loose", "pick", "transpose", "unsqueeze", "squeeze", "join", "stack", "reshape"])
        )
        axis = draw(st.integers(0, max(0, array.ndim - 1)))
        if array.ndim == 0 or (array.size == 0 and action == "reshape"):
            return
        size = array.shape[axis]
        known = isinstance(view.dims[axis], int)
        if action == "slice" and known:
            start, stop = draw(st.integers(-size - 1, size + 1)), draw(st.integers(-size - 1, size + 2))
            step = draw(st.sampled_from([1, 1, 2, 3]))
            self.add(
                self.views.slice(view, axis, start, stop, step),
                array[(slice(None),) * axis + (slice(start, stop, step),)],
            )
        elif action == "loose":
            name = draw(st.sampled_from(["one", "two", "back"]))
            bound = slice(int(self.arrays[name][0]), None)
            self.add(self.views.slice(view, axis, name, END), array[(slice(None),) * axis + (bound,)])
        elif action == "pick" and size:
            index = draw(st.integers(0, size - 1 if known else 0))
            self.add(self.views.pick(view, axis, index), array.take(index, axis))
        elif action == "transpose":
            order = draw(st.permutations(range(array.ndim)))
            self.add(self.views.transpose(view, order), array.transpose(order))
        elif action == "unsqueeze" and array.ndim < 6:
            self.add(self.views.unsqueeze(view, (axis,)), np.expand_dims(array, axis))
        elif action == "squeeze" and view.dims[axis] == 1:
            self.add(self.views.squeeze(view, (axis,)), array.squeeze(axis))
        elif action in ("join", "stack"):
            self._join(draw, view, array, axis, action == "stack")
        elif action == "reshape" and all(isinstance(dim, int) for dim in view.dims) and array.size:
            shape = draw(st.sampled_from(_shapes(array.size)))
            moved = self.views.reshape(view, shape)
            if moved is not None:
                self.add(moved, array.reshape(shape))

    def _join(self, draw: st.DrawFn, view: View, array: np.ndarray, axis: int, stack: bool) -> None:
        def fits(other: np.ndarray) -> bool:
            return other.ndim == array.ndim and all(
                a == b
                for place, (a, b) in enumerate(zip(other.shape, array.shape, strict=True))
                if stack or place != axis
            )

        others = [entry for entry in self.entries if fits(entry[1])]
        chosen = [(view, array), *draw(st.lists(st.sampled_from(others), min_size=0, max_size=3))]
        if stack and array.ndim < 6:
            parts = [self.views.unsqueeze(one, (axis,)) for one, _ in chosen]
            self.add(self.views.join(parts, axis), np.stack([held for _, held in chosen], axis))
        elif not stack:
            self.add(
                self.views.join([one for one, _ in chosen], axis), np.concatenate([held for _, held in chosen], axis)
            )


def _shapes(size: int) -> list[tuple[int, ...]]:
    found = [(size,)]
    for a in range(2, 13):
        if size % a == 0:
            found += [(a, size // a), (size // a, 1, a)]
            found += [(a, b, size // a // b) for b in (2, 3, 4) if size // a % b == 0]
    return found


@settings(max_examples=300)
@given(st.data())
def test_a_view_holds_what_numpy_says(data: st.DataObject) -> None:
    pool = Pool()
    pool.leaf(2, 3, 4)
    pool.leaf(2, 3, 4)
    pool.leaf(2, 5, 4, symbolic=(1,))
    pool.leaf(6, 4)
    # As long as another one only after a cut.
    pool.leaf(2, 7, 4)
    for _ in range(data.draw(st.integers(1, 14))):
        pool.grow(data.draw)
    for view, array in pool.entries:
        np.testing.assert_array_equal(evaluate(view, pool.arrays), array)


# The short forms. Each row: what is built, and how many operators are left of it.


def packed(pool: Pool, layers: int = 3) -> tuple[View, list[View], list[View]]:
    """A WeNet cache `layer head time (kv dim)` of keys and values `batch head time dim`."""
    keys = [pool.leaf(1, 2, 5, 4, symbolic=(2,)) for _ in range(layers)]
    values = [pool.leaf(1, 2, 5, 4, symbolic=(2,)) for _ in range(layers)]
    rows = [pool.views.join([key, value], 3) for key, value in zip(keys, values, strict=True)]
    return pool.views.join(rows, 0), keys, values


def test_a_layer_and_a_half_of_a_packed_cache_is_the_port() -> None:
    pool = Pool()
    cache, keys, values = packed(pool)
    for layer in range(3):
        row = pool.views.slice(cache, 0, layer, layer + 1)
        assert pool.views.slice(row, 3, 0, 4) is keys[layer]
        assert pool.views.slice(row, 3, 4, END) is values[layer]
        # The other way round, too.
        assert pool.views.slice(pool.views.slice(cache, 3, 4, 8), 0, layer, layer + 1) is values[layer]


def test_a_window_over_time_does_not_hide_the_parts() -> None:
    pool = Pool()
    cache, keys, _ = packed(pool)
    window = pool.views.slice(cache, 2, "one", END)
    found = pool.views.slice(pool.views.slice(window, 3, 0, 4), 0, 1, 2)
    assert isinstance(found, Slice)
    assert found.of is keys[1]


def test_a_transposed_and_gathered_cache_is_the_port() -> None:
    pool = Pool()
    keys = [pool.leaf(7, 2, 5, 4, symbolic=(0,)) for _ in range(3)]
    values = [pool.leaf(7, 2, 5, 4, symbolic=(0,)) for _ in range(3)]
    rows = [pool.views.unsqueeze(pool.views.join([k, v], 3), (1,)) for k, v in zip(keys, values, strict=True)]
    cache = pool.views.transpose(pool.views.join(rows, 1), (1, 0, 2, 3, 4))
    row = pool.views.pick(cache, 0, 2)
    assert pool.views.slice(row, 3, 0, 4) is keys[2]
    assert pool.views.slice(row, 3, 4, 8) is values[2]


def test_windows_of_keys_and_values_are_packed_before_they_are_cut() -> None:
    pool = Pool()
    _, keys, values = packed(pool, layers=1)
    cut = [pool.views.slice(one, 2, "one", END) for one in (keys[0], values[0])]
    assert count(pool.views.join(cut, 3)) == 2


def test_windows_of_layers_are_cut_before_they_are_stacked() -> None:
    pool = Pool()
    _, keys, _ = packed(pool)
    cut = [pool.views.slice(key, 2, "one", END) for key in keys]
    assert count(pool.views.join(cut, 0)) == 4


@pytest.mark.parametrize("shape", [(6, 4), (2, 3, 4), (24,), (2, 12), (2, 3, 2, 2)])
def test_reshape_there_and_back_is_nothing(shape: tuple[int, ...]) -> None:
    pool = Pool()
    view = pool.leaf(2, 3, 4)
    there = pool.views.reshape(view, shape)
    assert there is not None
    assert pool.views.reshape(there, (2, 3, 4)) is view


def test_parts_of_a_split_come_together_again() -> None:
    pool = Pool()
    view = pool.leaf(2, 6, 4)
    parts = [pool.views.slice(view, 1, begin, begin + 2) for begin in (0, 2, 4)]
    assert pool.views.join(parts, 1) is view
    assert count(pool.views.join(parts[1:], 1)) == 1


# What must not be simplified.


def test_parts_in_another_order_stay_apart() -> None:
    pool = Pool()
    view = pool.leaf(2, 6, 4)
    parts = [pool.views.slice(view, 1, begin, begin + 2) for begin in (2, 0, 4)]
    assert count(pool.views.join(parts, 1)) > 1


def test_a_slice_across_the_seam_takes_from_both_parts() -> None:
    pool = Pool()
    cache, keys, values = packed(pool, layers=1)
    found = pool.views.slice(cache, 3, 2, 6)
    assert isinstance(found, Join)
    assert [part.sources[0] for part in found.parts] == [keys[0], values[0]]


def test_unknown_sizes_are_not_equal() -> None:
    assert refine(("a@0", 4), ("b@0", 4)) is None
    assert refine((6, 4), (4, 6)) is None
