"""Masks: varied, as long as they must be, and never a row in which there is nothing to see."""

from __future__ import annotations

import numpy as np
import pytest

from onnxfix.convention.convention import PortSpec
from onnxfix.convention.layout import parse_layout
from onnxfix.verify.masks import Keys, make_mask

# layout, shape, length of the cache, keys of the present chunk
MASKS = [
    ("batch key", (3, 12), 8),
    ("batch 1 key", (1, 1, 80), 64),
    ("batch head query key", (2, 5, 4, 11), 7),
    ("query key", (4, 11), 7),
    ("key", (9,), 4),
    ("batch axis1", (3, 7), 0),
    ("batch key", (2, 6), 0),
    ("key batch", (12, 3), 8),
    ("batch key", (2, 5), 5),
]


def spec(layout: str, name: str = "mask", dtype: str = "bool") -> PortSpec:
    return PortSpec("mask", name, parse_layout(layout), dtype)


def rows(mask: np.ndarray, layout: str) -> np.ndarray:
    """Returns a mask with its keys last."""
    axes = layout.split()
    return np.moveaxis(mask, axes.index("key"), -1) if "key" in axes else mask


@pytest.mark.parametrize(("layout", "shape", "time"), MASKS)
@pytest.mark.parametrize("filled", [True, False])
def test_every_row_has_something_to_see(layout, shape, time, filled):
    for tick in range(30):
        keys = Keys(time, time if filled else min(time, tick), filled)
        mask = make_mask(spec(layout), shape, keys, tick, np.random.default_rng(tick))

        assert mask.shape == shape
        assert set(np.unique(mask)) <= {0, 1}
        assert rows(mask, layout).any(axis=-1).all(), (tick, mask)


@pytest.mark.parametrize(("layout", "shape", "time"), MASKS)
def test_masks_of_full_caches_are_varied(layout, shape, time):
    masks = [
        make_mask(spec(layout), shape, Keys(time, time, True), tick, np.random.default_rng(tick)) for tick in range(12)
    ]

    assert masks[0].all()
    assert len({mask.tobytes() for mask in masks}) > 3
    assert sum(not mask.all() for mask in masks) > 3


def test_each_query_sees_the_chunk_up_to_itself():
    mask = make_mask(spec("batch head query key"), (1, 1, 3, 8), Keys(5, 5, True), 2, np.random.default_rng(0))

    assert mask[0, 0, :, 5:].tolist() == [[1, 0, 0], [1, 1, 0], [1, 1, 1]]


def test_streams_of_a_batch_have_masks_of_their_own():
    mask = make_mask(spec("batch key"), (4, 40), Keys(32, 32, True), 1, np.random.default_rng(0))

    assert len({row.tobytes() for row in mask}) > 1
    assert mask[:, 32:].all()


def test_what_a_cache_does_not_hold_yet_is_hidden():
    mask = make_mask(spec("batch key"), (2, 8), Keys(6, 2, False), 4, np.random.default_rng(0))

    assert mask.tolist() == [[0, 0, 0, 0, 1, 1, 1, 1]] * 2


def test_a_padding_mask_of_booleans_says_what_is_hidden():
    some = make_mask(spec("batch key"), (2, 8), Keys(6, 2, False), 4, np.random.default_rng(0))
    padding = make_mask(spec("batch key", "key_padding_mask"), (2, 8), Keys(6, 2, False), 4, np.random.default_rng(0))

    assert (padding == 1 - some).all()
