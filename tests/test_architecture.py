"""The house: each floor stands on those below it, and heavy libraries live in one room each."""

from __future__ import annotations

import ast
import importlib.metadata
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import onnxfix

PACKAGE = Path(onnxfix.__file__).parent
FLOORS = (
    {"errors"},
    {"convention"},
    {"model"},
    {"surgery", "verify"},
    {
        "convert",
        "proof",
        "testing",
        "request",
        "report",
        "sidefiles",
        "inspection",
        "proposal",
        "pairing",
        "difference",
    },
    {"zoo"},
    {"cli", "__main__"},
)
"""From the ground up. A room may use what stands below and its own floor, but `surgery` and `verify` not each other."""

ROOMS = {
    "onnx_graphsurgeon": {"model/graph.py", "model/node.py"},
    "onnxsim": {"surgery/simplifier.py"},
    "onnxruntime": {"verify/session.py"},
    "click": {"cli/"},
    "rich": {"cli/"},
    "psutil": {"zoo/memory.py"},
    "filelock": {"zoo/state.py"},
    "distributed": {"zoo/cluster/"},
    "fsspec": {"zoo/stores/remote.py"},
    "platformdirs": {"zoo/remote_state.py"},
    "onnx": {"model/", "surgery/", "difference.py"},
}
"""Where alone each library is imported; a folder stands for all its modules."""

MODULES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))


def imports(module: str) -> Iterator[tuple[str, bool]]:
    """Yields every imported module, and whether the import is there for type checkers only."""
    tree = ast.parse((PACKAGE / module).read_text(encoding="utf-8"))
    for node, is_typing in _walk(tree, False):
        if isinstance(node, ast.Import):
            yield from ((name.name, is_typing) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            assert node.module is not None
            yield node.module, is_typing
            if node.module == "onnxfix":
                yield from ((f"onnxfix.{name.name}", is_typing) for name in node.names)


def _walk(node: ast.AST, is_typing: bool) -> Iterator[tuple[ast.AST, bool]]:
    for child in ast.iter_child_nodes(node):
        inside = is_typing or (
            isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING" and child in node.body
        )
        yield child, inside
        yield from _walk(child, inside)


def floor(room: str) -> int | None:
    """Returns how high a room lies; None for what is no room."""
    return next((height for height, rooms in enumerate(FLOORS) if room in rooms), None)


def room(module: str) -> str:
    """Returns the folder or, at the top, the module itself."""
    return module.split("/")[0].removesuffix(".py")


def test_every_room_has_a_floor() -> None:
    assert {room(module) for module in MODULES} - {"__init__"} <= set().union(*FLOORS)


@pytest.mark.parametrize("module", [module for module in MODULES if module != "__init__.py"])
def test_imports_go_down(module: str) -> None:
    own = room(module)
    height = floor(own)
    assert height is not None
    for name, is_typing in imports(module):
        if not name.startswith("onnxfix."):
            continue
        other = name.split(".")[1]
        below = floor(other)
        if below is None:  # `from onnxfix import __version__`
            assert other.startswith("__")
            continue
        may = below < height or other == own or (below == height and {own, other} != {"surgery", "verify"})
        assert may, f"{module} imports {name}{' (for types)' if is_typing else ''}"


@pytest.mark.parametrize("library", ROOMS)
def test_libraries_stay_in_their_rooms(library: str) -> None:
    users = {
        module
        for module in MODULES
        for name, is_typing in imports(module)
        if name.split(".")[0] == library and not is_typing
    }
    homes = ROOMS[library]
    assert users, f"nobody imports {library}"
    for module in users:
        assert any(module == home or (home.endswith("/") and module.startswith(home)) for home in homes), module


@pytest.mark.parametrize("module", MODULES)
def test_modules_are_named_after_what_they_do(module: str) -> None:
    for word in ("util", "helper", "common", "manager"):
        assert word not in module


def test_the_version_is_the_same_everywhere() -> None:
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == onnxfix.__version__ == importlib.metadata.version("onnxfix")


def test_the_public_names_exist() -> None:
    for name in onnxfix.__all__:
        assert getattr(onnxfix, name) is not None
    with pytest.raises(AttributeError, match="nonsense"):
        _ = onnxfix.nonsense  # type: ignore[attr-defined]
