"""Killed at any moment and started again, a migration ends like one that nobody disturbed.

`ONNXFIX_KILLS=50` kills a real migration of 60 models so often, at random moments, and one of made-up work at each of
its calls; the suite does it a few times, with fewer models. For root it also fills a small disk then, again and again.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from zoo_models import NEW, OLD, ONNXFIX, PLAIN, hidden, journal, make_zoo, tree, with_shared_data

_KILLS = int(os.environ.get("ONNXFIX_KILLS", "2"))
_SEED = int(os.environ.get("ONNXFIX_SEED", "0"))
_MODELS, _JOBS = (60, "2") if _KILLS > 10 else (6, "1")


def _zoo(folder: Path) -> Path:
    kinds = (OLD, OLD, NEW, PLAIN)
    zoo = make_zoo(folder / "zoo", {f"{index % 5}/m {index:02}.onnx": kinds[index % 4] for index in range(_MODELS)})
    with_shared_data(zoo / "shared", "a.onnx", "b.onnx")
    (zoo / "cut.onnx").write_bytes(b"\x08\x08")
    (zoo / "shared" / "tokens.txt").write_text("t")
    return zoo


def _words(zoo: Path, out: Path) -> list[str]:
    return [*ONNXFIX, "migrate", str(zoo), str(out), "--to", "silero-hc", "--jobs", _JOBS, "--quiet"]


def _wait(process: subprocess.Popen[bytes], out: Path, done: int, seconds: float) -> bool:
    """Waits until so many models are done, and some time longer; returns whether the process still runs then."""
    while process.poll() is None and _done(out) < done:
        time.sleep(0.02)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
    return process.poll() is None


def _done(out: Path) -> int:
    try:
        return sum(row["state"] == "done" for row in journal(out).values())
    except sqlite3.Error:  # it is being made
        return 0


def test_killed_at_random_moments_it_ends_as_if_undisturbed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zoo, expected, out = _zoo(tmp_path), tmp_path / "expected", tmp_path / "out"
    (tmp_path / "scratch").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))
    before = tree(zoo)
    assert subprocess.run(_words(zoo, expected), stderr=subprocess.DEVNULL).returncode == 3
    moments, hits = random.Random(_SEED), 0
    while hits < _KILLS:
        done = hits * (_MODELS - 4) // _KILLS if moments.random() < 0.7 else 0  # at times while it only starts
        with subprocess.Popen(_words(zoo, out), stderr=subprocess.DEVNULL) as process:
            assert _wait(process, out, done, moments.uniform(0, 1.5)), "it was done before it was killed"
            process.kill()
            hits += 1
    assert subprocess.run(_words(zoo, out), stderr=subprocess.DEVNULL).returncode == 3
    assert tree(out) == tree(expected)
    assert journal(out) == journal(expected)
    assert hidden(out) == hidden(expected) == {"journal.sqlite", "lock"}
    assert tree(zoo) == before
    assert not [path for path in (tmp_path / "scratch").iterdir() if "onnxfix" in path.name]


def test_killed_at_each_of_its_calls_it_ends_as_if_undisturbed(tmp_path: Path) -> None:
    step = 1 if _KILLS > 10 else 299
    ran = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("killed_at.py")), str(tmp_path), str(step)],
        capture_output=True, text=True, cwd=Path(__file__).parent,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    kills = json.loads(ran.stdout)
    assert len(kills) == 8
    assert all(count >= 500 // step for count in kills.values())


if _KILLS > 10 and os.geteuid() == 0:

    def test_on_a_disk_that_is_full_again_and_again_it_ends_as_if_undisturbed(tmp_path: Path) -> None:
        zoo, expected, disk = _zoo(tmp_path), tmp_path / "expected", tmp_path / "disk"
        assert subprocess.run(_words(zoo, expected), stderr=subprocess.DEVNULL).returncode == 3
        disk.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", disk], check=True)
        try:
            stops = 0
            for size in range(300, 6000, 150):
                subprocess.run(["mount", "-o", f"remount,size={size}k", disk], check=True)
                ran = subprocess.run(_words(zoo, disk / "out"), capture_output=True, text=True)
                assert ran.returncode == 3
                if "full" not in ran.stderr:
                    break
                stops += 1
            assert stops > 2
            assert tree(disk / "out") == tree(expected)
            assert journal(disk / "out") == journal(expected)
            assert hidden(disk / "out") == {"journal.sqlite", "lock"}
        finally:
            subprocess.run(["umount", disk], check=True)
