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
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from distant import register
from made_up import made_up_runner
from zoo_models import hidden, journal, tree

import onnxfix
from onnxfix.zoo.migrate import migrate
from onnxfix.zoo.migration import Request
from onnxfix.zoo.survey import survey

PACKAGE = str(Path(onnxfix.__file__).parent)
KILLED = 99


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


def _everything(out: Path) -> tuple[dict[str, bytes], set[str], dict[str, dict[str, object]], set[str]]:
    state = {path.name for path in (out.parent / "home").rglob("*") if path.is_file()}
    return tree(out), hidden(out), journal(out), state


def main(folder: Path, step: int, *, mode: str, is_first: bool) -> int:
    """Returns how many moments there were; all of them ended as an undisturbed run.

    Args:
        folder: Where it works.
        step: How many calls lie between two kills.
        mode: `tree`, `in-place`, or the protocol by which zoo and destination are reached.
        is_first: Whether nothing was migrated yet.
    """
    is_in_place, is_remote = mode == "in-place", mode not in ("tree", "in-place")

    def action() -> None:
        zoo, out = (f"{mode}://zoo", f"{mode}://out") if is_remote else (now / "zoo", now / "out")
        request = Request(None if is_in_place else out, is_in_place=is_in_place, home=now / "home")
        migrate(survey(zoo), request, runner=made_up_runner)

    now, begin = folder / "now", folder / "begin"
    os.environ["SHELF"] = str(now)
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
    step = 3 * step if is_remote and step > 1 else step  # there are more calls
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
        for found, wanted in zip(_everything(out), expected, strict=True):
            assert found == wanted, f"moment {moment}: {found} != {wanted}"
        assert is_in_place or tree(now / "zoo") == original, f"moment {moment}"
        moment += step


if __name__ == "__main__":
    register()
    found = {}
    for mode in ("tree", "in-place", "copier", "shelf"):
        for run in ("first", "second"):
            place = Path(sys.argv[1]) / mode / run
            found[f"{mode}, {run}"] = main(place, int(sys.argv[2]), mode=mode, is_first=run == "first")
    sys.stdout.write(json.dumps(found))
