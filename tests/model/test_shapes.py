"""Inference behind nodes whose sizes are computed at run time."""

from __future__ import annotations

import pytest

from onnxfix.model.graph import GraphView
from onnxfix.model.model import Model
from tests.model.files import parsed

CONSTANTS = """int64[1] first = {0}, int64[1] second = {1}, int64[1] third = {2}, int64[1] four = {4},
    int64[1] minus = {-1}, int64 zero = {0}, int64[1] end = {9223372036854775807}"""


def dims(inputs: str, body: str, name: str = "y") -> tuple[int | str | None, ...] | None:
    """What is inferred of a value. Sizes that inference made a name for are shown as None."""
    proto = parsed(
        f"g ({inputs}) => (float[] unread) <{CONSTANTS}> {{ {body} unread = Constant <value_float = 0.0> () }}"
    )
    del proto.graph.output[:]
    proto.graph.output.add(name=name)
    view = GraphView(Model.from_proto(proto))
    view.infer_shapes()
    found = view.dims_of(name)
    return None if found is None else tuple(None if str(dim).startswith("unk__") else dim for dim in found)


@pytest.mark.parametrize(
    ("inputs", "body", "expected"),
    [
        ("float[1, 50, 8] x, int64[1] a, int64[1] b", "y = Slice (x, a, b, second, second)", (1, None, 8)),
        ("float[1, 50, 8] x, int64[1] a, int64[1] b", "y = Slice (x, a, b, minus)", (1, 50, None)),
        ("float[4, 50, 8] x, int64[2] a, int64[2] b", "y = Slice (x, a, b)", (None, None, 8)),
        ("float[1, t, 8] x, int64[2] s", "y = Reshape (x, s)", (None, None)),
        ("float[1, t, 8] x, int64[1] s", "s3 = Concat <axis = 0> (first, s, four) y = Reshape (x, s3)", (1, None, 4)),
        # The pattern of `flatten` and `view` in exports by TorchScript.
        (
            "float[1, t, 3, 8] x",
            "s = Shape (x) head = Slice (s, first, third) all = Concat <axis = 0> (head, minus) y = Reshape (x, all)",
            (1, "t", 24),
        ),
        (
            "float[b, t, 32] x",
            "s = Shape (x) b = Gather (s, zero) b1 = Unsqueeze (b, first) "
            "all = Concat <axis = 0> (b1, minus, four, second) y = Reshape (x, all)",
            ("b", None, 4, 1),
        ),
        (
            "float[6, 8] x",
            "s = Shape (x) n = Gather (s, zero) two = Constant <value_int = 2> () h = Div (n, two) "
            "h1 = Unsqueeze (h, first) y = Slice (x, first, h1, first)",
            (3, 8),
        ),
        (
            "float[2, 1, 8] x, int64[1] n",
            "s = Concat <axis = 0> (third, n, four, second) y = Expand (x, s)",
            (2, 2, 4, 8),
        ),
        ("float[9, 8] x, int64[1] n", "m = Mul (four, minus) y = Slice (x, minus, m, first, minus)", (3, 8)),
        ("float[t] x", "s = Shape (x) y = ConstantOfShape (s)", ("t",)),
        # Constants are nodes in exports by TorchScript.
        (
            "float[1, t, 8] x, int64[1] n",
            "s = Slice (x, first, n, second) a = Constant <value = int64[1] {0}> () y = Unsqueeze (s, a)",
            (1, 1, None, 8),
        ),
        (
            "float[1, t, 8] x, int64[1] n",
            "s = Slice (x, first, n, second) a = Constant <value_ints = [0]> () y = Unsqueeze (s, a)",
            (1, 1, None, 8),
        ),
        # What a body makes of a value outside.
        (
            "float[1, t, 8] x, int64[1] n, bool c",
            "s = Slice (x, first, n, second) y = If (c) <then_branch = one () => (float[p, q, r] a) { a = Neg (s) }, "
            "else_branch = two () => (float[p, q, r] b) { b = Abs (s) }>",
            (1, "q", 8),
        ),
    ],
)  # fmt: skip
def test_what_is_known_is_kept(inputs: str, body: str, expected: tuple[int | str | None, ...] | None) -> None:
    assert dims(inputs, body) == expected


def test_equal_sizes_have_equal_names_and_unequal_ones_do_not() -> None:
    proto = parsed(f"""g (float[1, t, 8] x, int64[1] n) => (float[1, m, 8] y) <{CONSTANTS}> {{
        a = Slice (x, first, n, second)
        b = Neg (a)
        c = Slice (x, n, end, second)
        y = Concat <axis = 1> (b, c)
    }}""")
    view = GraphView(Model.from_proto(proto))
    view.infer_shapes()
    lengths = {name: (view.dims_of(name) or ())[1] for name in "xabc"}
    assert lengths["x"] == "t"
    assert lengths["a"] == lengths["b"]
    assert len(set(lengths.values())) == 3


def test_a_chain_of_blind_nodes_is_followed_to_its_end() -> None:
    # Every Reshape takes its sizes from the one before; one that nobody can see through would blind all that follow.
    steps = "".join(
        f"s{i} = Shape (x{i}) h{i} = Slice (s{i}, first, third) r{i} = Concat <axis = 0> (h{i}, minus) "
        f"z{i} = Reshape (x{i}, r{i}) w{i} = Slice (z{i}, n, m, second) x{i + 1} = Relu (w{i}) "
        for i in range(20)
    )
    assert dims("float[3, t, 8] x0, int64[1] n, int64[1] m", steps, "x20") == (3, None, 8)


def test_what_the_model_declares_is_believed() -> None:
    proto = parsed("g (float[2] x) => (float[2] y) <float[7] a> { a = local.Custom (x) y = Slice (a, n, n) }")
    proto.graph.input.append(parsed("g (int64[1] n) => (int64[1] n) {}").graph.input[0])
    view = GraphView(Model.from_proto(proto))
    view.infer_shapes()
    assert view.dims_of("a") == (7,)


TWINS = """g (float[1, t, 8] x, float[1, t, 8] y, float[1, u, 8] z, int64[1] n, int64[1] m) => (float[] unread)
    <int64[1] zero = {0}, int64[1] two = {2}, int64[2] ends = {0, 3}> {
    xs = Slice (x, n, m, two) ys = Slice (y, n, m, two) zs = Slice (z, n, m, two)
    left = Transpose <perm = [1, 0, 2]> (xs) right = Transpose <perm = [1, 2, 0]> (xs)
    other = Transpose <perm = [1, 0, 2]> (zs)
    front = Unsqueeze (xs, zero) inside = Unsqueeze (xs, two) both = Unsqueeze (xs, ends)
    same = Add (xs, ys) mixed = Add (xs, zs)
    unread = Constant <value_float = 0.0> ()
}"""


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("left", ("t", 1, None)),
        ("right", ("t", None, 1)),
        ("other", ("u", 1, None)),
        ("front", (1, 1, "t", None)),
        ("inside", (1, "t", 1, None)),
        ("both", (1, 1, "t", 1, None)),
        ("same", (1, "t", None)),
    ],
)
def test_nodes_that_read_nearly_the_same_are_not_confused(name: str, expected: tuple[int | str | None, ...]) -> None:
    view = GraphView(Model.from_proto(parsed(TWINS)))
    view.infer_shapes()
    found = view.dims_of(name) or ()
    assert tuple(None if str(dim).startswith("unk__") else dim for dim in found) == expected


def test_sizes_with_different_names_are_not_taken_for_equal() -> None:
    # `same` comes first: what was learnt of it holds only for nodes whose inputs have equal sizes too.
    view = GraphView(Model.from_proto(parsed(TWINS)))
    view.infer_shapes()
    assert (view.dims_of("mixed") or ())[1] not in ("t", "u")
