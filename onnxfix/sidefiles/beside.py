"""Which files that runtimes read lie beside a model, and what becomes of them when it is converted."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from onnxfix.errors import UsageError
from onnxfix.sidefiles.names import GENAI, TRITON
from onnxfix.sidefiles.reading import is_there, read_text

if TYPE_CHECKING:
    from onnxfix.convention.plan import Plan
    from onnxfix.sidefiles.change import Beside, SideFile

    Follow: TypeAlias = Callable[[Beside, Plan], SideFile]


def asked_side_files(
    plan: Plan, model: Path | None, destination: Path | None, *, is_asked: bool
) -> tuple[tuple[SideFile, ...], tuple[str, ...]]:
    """Returns what becomes of the files beside a model where that is asked for, and what the user should know.

    Args:
        plan: The conversion.
        model: The source; None for a model in memory.
        destination: Where the result goes; None if it stays in memory.
        is_asked: Whether they shall follow the conversion.

    Raises:
        SideFileError: A file cannot be read, contradicts the model, or its runtime cannot be told of the result.
        UsageError: They shall, and source or result lies nowhere.
    """
    if not is_asked:
        names = [] if model is None or plan.is_identity else [path.name for path, _, _ in _found(model, model)]
        return (), tuple(
            f"`{name}` beside the model stays as it is: --write-config writes it for the result" for name in names
        )
    if model is None or destination is None:
        what = "model is" if model is None else "result stays"
        raise UsageError(f"the {what} in memory, nothing lies beside it", where="--write-config")
    files = side_files(plan, model, destination)
    if not files:
        return (), (f"--write-config: neither {GENAI} nor {TRITON} lies beside the model",)
    return files, tuple(note for file in files for note in file.notes)


def side_files(plan: Plan, model: Path, destination: Path) -> tuple[SideFile, ...]:
    """Returns what becomes of the files beside a model; nothing is written.

    Args:
        plan: The conversion.
        model: The source.
        destination: Where the result goes.

    Raises:
        SideFileError: A file cannot be read, contradicts the model, or its runtime cannot be told of the result.
    """
    from onnxfix.sidefiles.change import Beside

    return tuple(
        follow(Beside(source, target, read_text(source), model.name, destination.name), plan)
        for source, target, follow in _found(model, destination)
    )


def _found(model: Path, destination: Path) -> Iterator[tuple[Path, Path, Follow]]:
    """Yields each file beside a model, where it goes, and what follows the conversion in it."""
    if is_there(path := model.parent / GENAI):
        yield path, destination.parent / GENAI, _follow_in_genai
    if is_there(path := model.parent / TRITON):
        yield path, destination.parent / TRITON, _follow_in_triton
    elif _is_version(model.parent) and is_there(path := _above(model.parent) / TRITON):
        folder = _above(destination.parent) if _is_version(destination.parent) else destination.parent
        yield path, folder / TRITON, _follow_in_triton


def _follow_in_genai(beside: Beside, plan: Plan) -> SideFile:
    from onnxfix.sidefiles import genai

    return genai.follow(beside, plan)


def _follow_in_triton(beside: Beside, plan: Plan) -> SideFile:
    from onnxfix.sidefiles import triton

    return triton.follow(beside, plan)


def _is_version(folder: Path) -> bool:
    """Whether a folder is one of Triton's: `MODEL/1/model.onnx` has its configuration in `MODEL`."""
    return os.path.basename(os.path.abspath(folder)).isdecimal()  # noqa: PTH100, PTH119 (links are not followed)


def _above(folder: Path) -> Path:
    return folder.parent if folder.name else folder / ".."
