"""Kills migrations at every moment: each runs in a process of its own that ends, without any farewell, at one call.

Run as a program, with a folder to work in and how many calls lie between two kills. The work on the models is made up,
so that no library is there whose threads a fork would lose, and each run takes milliseconds.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import traceback
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from types import FrameType

from zoo_models import hidden, journal, tree

import onnxfix
from onnxfix.model.atomic import NewFile
from onnxfix.zoo.limits import Limits
from onnxfix.zoo.marks import mark_of
from onnxfix.zoo.migrate import migrate
from onnxfix.zoo.migration import Request
from onnxfix.zoo.outcome import Converted, Failed, Skipped
from onnxfix.zoo.pool import Ended, Event, Started
from onnxfix.zoo.survey import survey
from onnxfix.zoo.task import Staged, Task, Work

PACKAGE = str(Path(onnxfix.__file__).parent)
KILLED = 99


def _made_up(task: Task) -> Work:
    """Makes a result of a model: its bytes, and `+`. Models of `s` share a data file, `f` fails, `k` is skipped."""
    source, stage = Path(task.source), Path(task.stage)
    mark = mark_of(source, task.path)
    if source.name.startswith("f") or source.read_bytes() == b"bad":
        return Work(Failed("ModelReadError", "as it should"), mark)
    if not task.is_in_place:
        stage.mkdir()
    target = stage if task.is_in_place else stage / source.name
    results = []
    if source.name.startswith("s") and source.read_bytes() != b"alone" and not task.is_in_place:
        shutil.copy2(source.with_name("w.bin"), stage / "w.bin")
        results.append(Staged(mark_of(stage / "w.bin", "w.bin"), str(stage / "w.bin")))
    is_skipped = source.name.startswith("k")
    if not (is_skipped and task.is_in_place):
        with NewFile(target, source) as new:
            new.write([source.read_bytes(), b"" if is_skipped else b"+"])
            new.move(target)
        results.append(Staged(mark_of(target, task.path), str(target)))
    return Work(Skipped("as it should") if is_skipped else Converted("a", "b"), mark, (), tuple(results))


def _runner(tasks: Iterable[Task], limits: Limits, most: int) -> Generator[Event, None, None]:
    waiting = list(tasks)
    for first in range(0, len(waiting), 2):  # two at a time
        yield from map(Started, waiting[first : first + 2])
        yield from (Ended(task, _made_up(task)) for task in waiting[first : first + 2])


def _in_child(action: Callable[[], None]) -> int:
    """Returns how a process ends that does something."""
    child = os.fork()
    if child == 0:
        try:
            action()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _killed_at(moment: int, action: Callable[[], None]) -> None:
    """Does something, and ends the process at the given call of this package, or of what it calls."""
    left = moment

    def count(frame: FrameType, event: str, argument: object) -> None:
        nonlocal left
        if frame.f_code.co_filename.startswith(PACKAGE) and event in ("call", "c_call"):
            left -= 1
            if left < 0:
                os._exit(KILLED)

    sys.setprofile(count)
    try:
        action()
    finally:
        sys.setprofile(None)


def _fill(zoo: Path) -> None:
    zoo.mkdir()
    for name in ("f.onnx", "k.onnx", "m.onnx", "s1.onnx", "s2.onnx"):
        (zoo / name).write_bytes(name.encode())
    (zoo / "w.bin").write_bytes(b"weights")
    (zoo / "t.txt").write_bytes(b"other")


def _change(zoo: Path) -> None:
    """Lets one model fail that was migrated, one do without its data, and one be new."""
    (zoo / "m.onnx").write_bytes(b"bad")
    (zoo / "s1.onnx").write_bytes(b"alone")
    (zoo / "n.onnx").write_bytes(b"new")


def _everything(out: Path) -> tuple[dict[str, bytes], set[str], dict[str, dict[str, object]]]:
    return tree(out), hidden(out), journal(out)


def main(folder: Path, step: int, *, is_in_place: bool, is_first: bool) -> int:
    """Returns how many moments there were; all of them ended as an undisturbed run."""

    def action() -> None:
        request = Request(None if is_in_place else folder / "now" / "out", is_in_place=is_in_place)
        migrate(survey(folder / "now" / "zoo"), request, runner=_runner)

    now, begin = folder / "now", folder / "begin"
    now.mkdir(parents=True)
    _fill(now / "zoo")
    if not is_first:
        assert _in_child(action) == 0
        _change(now / "zoo")
    now.rename(begin)
    shutil.copytree(begin, now)
    original, out = tree(now / "zoo"), now / ("zoo" if is_in_place else "out")
    assert _in_child(action) == 0
    expected = _everything(out)
    moment = kills = 0
    while True:
        shutil.rmtree(now)
        shutil.copytree(begin, now)
        ended = _in_child(lambda moment=moment: _killed_at(moment, action))  # type: ignore[misc]
        if ended == 0:
            return kills
        assert ended == KILLED, f"moment {moment}: {ended}"
        kills += 1
        # Killed once more while it recovers, and only then left alone.
        assert _in_child(lambda moment=moment: _killed_at(moment // 2, action)) in (0, KILLED)  # type: ignore[misc]
        assert _in_child(action) == 0, f"moment {moment}"
        assert _everything(out) == expected, f"moment {moment}"
        assert is_in_place or tree(now / "zoo") == original, f"moment {moment}"
        moment += step


if __name__ == "__main__":
    found = {}
    for mode in ("tree", "in-place"):
        for run in ("first", "second"):
            place = Path(sys.argv[1]) / mode / run
            is_first = run == "first"
            found[f"{mode}, {run}"] = main(place, int(sys.argv[2]), is_in_place=mode == "in-place", is_first=is_first)
    sys.stdout.write(json.dumps(found))
