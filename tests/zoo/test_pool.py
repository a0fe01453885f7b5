"""Processes: a model that crashes, hangs or takes memory costs nothing else, and no process is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest
from zoo_models import NEW, OLD, ONNXFIX, PLAIN, TO, command, hidden, journal, make_zoo, outcomes, tree

from onnxfix.zoo.limits import Limits
from onnxfix.zoo.migrate import migrate
from onnxfix.zoo.migration import Request
from onnxfix.zoo.outcome import Failed
from onnxfix.zoo.pool import Pool
from onnxfix.zoo.settings import Settings
from onnxfix.zoo.survey import survey, survey_files
from onnxfix.zoo.task import Task

FAULTS = {"crash": "Crashed", "kill": "Crashed", "memory": "OutOfMemory", "bug": "Bug"}  # fmt: skip


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a zoo in which every way to come to grief has a model."""
    models = {f"{fault}.onnx": OLD for fault in (*FAULTS, "hang", "spin")}
    return make_zoo(
        tmp_path_factory.mktemp("pool") / "zoo",
        {"a.onnx": OLD, "m.onnx": NEW, **models, "z z.onnx": OLD, "p.onnx": PLAIN},
    )


def test_what_does_not_come_back_is_ended(zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONNXFIX_TEST_FAULT", "hang:hang.onnx;spin:spin.onnx")
    found = survey_files([zoo / "hang.onnx", zoo / "spin.onnx"])
    migration = migrate(found, Request(tmp_path / "out", TO, Limits(jobs=2, seconds=2)))
    for _, outcome in migration.outcomes:
        assert isinstance(outcome, Failed)
        assert (outcome.kind, outcome.message) == ("Hung", "it was not done after 2 s, and was ended")
    assert len(migration.outcomes) == 2
    assert hidden(tmp_path / "out") == {"journal.sqlite", "lock"}
    assert _workers() == []


def test_every_trouble_is_the_outcome_of_its_model_alone_and_the_next_run_does_what_failed(
    zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    monkeypatch.setenv("ONNXFIX_TEST_FAULT", ";".join(f"{fault}:{fault}.onnx" for fault in FAULTS))
    migration = migrate(survey(zoo), Request(out, TO, Limits(jobs=2, memory=600_000_000)))
    said = {path: one for path, one in migration.outcomes if isinstance(one, Failed)}
    assert {path: one.kind for path, one in said.items()} == {f"{fault}.onnx": kind for fault, kind in FAULTS.items()}
    fine = {
        "a.onnx": "converted", "hang.onnx": "converted", "spin.onnx": "converted", "z z.onnx": "converted",
        "m.onnx": "unchanged", "p.onnx": "skipped",
    }  # fmt: skip
    assert {path: one.word for path, one in migration.outcomes if path not in said} == fine
    assert migration.exit_code == 70
    assert hidden(out) == {"journal.sqlite", "lock"}
    assert tree(out).keys() == fine.keys()
    assert _workers() == []
    assert "SIGSEGV" in said["crash.onnx"].message
    assert "Segmentation fault" in said["crash.onnx"].log
    assert "SIGKILL" in said["kill.onnx"].message
    assert "memory" in said["kill.onnx"].hint
    assert said["memory.onnx"].message == "it took more than 600 MB of memory, and was ended"
    assert "RuntimeError: a bug on purpose" in said["bug.onnx"].message

    monkeypatch.delenv("ONNXFIX_TEST_FAULT")
    migration = migrate(survey(zoo), Request(out, TO, Limits(jobs=1)))
    assert (migration.kept, migration.exit_code) == (6, 0)
    assert outcomes(out) == {path: fine.get(path, "converted") for path in tree(zoo)}
    assert len({row["results"][0][1] for row in journal(out).values()}) == 3  # type: ignore[index]


def test_a_model_is_told_with_what_was_printed_for_it_alone(
    zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONNXFIX_TEST_FAULT", "say:a.onnx;kill:kill.onnx;say:spin.onnx;kill:spin.onnx")
    found = survey_files([zoo / "a.onnx", zoo / "kill.onnx", zoo / "spin.onnx"])
    migration = migrate(found, Request(tmp_path / "out", TO, Limits(jobs=1)))
    logs = {path: one.log for path, one in migration.outcomes if isinstance(one, Failed)}
    assert logs == {"kill.onnx": "", "spin.onnx": "said"}


def test_no_program_has_to_guard_its_main_module(zoo: Path, tmp_path: Path) -> None:
    """Processes find modules where the program does, and run nothing of it."""
    program = """
        import sys
        print("once", flush=True)
        sys.path.insert(0, "nowhere")
        from onnxfix.zoo.migrate import migrate
        from onnxfix.zoo.migration import Request
        from onnxfix.zoo.survey import survey_files
        print(migrate(survey_files([sys.argv[1]]), Request(__import__("pathlib").Path("out"))).outcomes[0][1].word)
    """
    (tmp_path / "program.py").write_text(textwrap.dedent(program))
    words = [sys.executable, "program.py", str(zoo / "a.onnx")]
    ran = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert (ran.stdout, ran.stderr, ran.returncode) == ("once\nskipped\n", "", 0)


def _workers() -> list[psutil.Process]:
    """Returns the processes that work for this one."""
    children = psutil.Process().children(recursive=True)
    return [child for child in children if "onnxfix.zoo.worker" in " ".join(child.cmdline())]


def test_no_more_models_are_taken_than_memory_reaches_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxfix.zoo.pool.available_memory", lambda: 2 * 10**9)
    monkeypatch.setattr("onnxfix.zoo.pool.cores", lambda: 64)

    class Idle:
        """A process that never starts."""

        def __init__(self, limits: Limits, threads: int) -> None:
            self.task: Task | None = None

        def kill(self) -> None:
            pass

    monkeypatch.setattr("onnxfix.zoo.pool.Colleague", Idle)
    assert Pool(Limits(jobs=3), most=9).jobs == 3
    assert Pool(Limits(), most=3).jobs == 3
    pool = Pool(Limits(), most=99)
    assert pool.jobs == 5  # 400 MB each
    taken = []
    for size in (0, 200 * 10**6, 10**6, 10**9, 0):  # 400 MB, 1.2 GB, 404 MB, 4.4 GB, 400 MB
        task = Task("m.onnx", "m.onnx", "", Settings(), size=size)
        free = pool._free_for(task)
        taken.append(free is not None)
        if free is not None:
            free.task = task
    assert taken == [True, True, False, False, True]
    for worker in pool._workers:
        worker.task = None
    assert pool._free_for(Task("m.onnx", "m.onnx", "", Settings(), size=10**12)) is not None  # alone, it is tried


def _children(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    with_workers = time.monotonic() + 60
    while time.monotonic() < with_workers:
        found = psutil.Process(process.pid).children(recursive=True)
        if len(found) == 2:
            return found
        time.sleep(0.05)
    raise AssertionError("no process has started")


def test_processes_end_with_the_one_that_started_them(zoo: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "ONNXFIX_TEST_FAULT": "hang:a.onnx;spin:bug.onnx"}
    words = [*ONNXFIX, "migrate", str(zoo), str(tmp_path / "out"), "--to", "silero-hc", "--jobs", "2"]
    with subprocess.Popen(words, env=environment, stderr=subprocess.DEVNULL) as process:
        children = _children(process)
        deadline = time.monotonic() + 60
        while len([1 for row in journal_rows(tmp_path / "out") if row == "running"]) < 2:  # both are busy
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.kill()
    _, alive = psutil.wait_procs(children, timeout=10)
    assert alive == []


def journal_rows(out: Path) -> list[str]:
    """Returns the states of all models, as far as there is a journal."""
    try:
        return [str(row["state"]) for row in journal(out).values()]
    except Exception:  # it is being made
        return []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_somebody_may_end_it(number: signal.Signals, zoo: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "ONNXFIX_TEST_FAULT": "hang:a.onnx"}
    out = tmp_path / "out"
    words = [*ONNXFIX, "migrate", str(zoo), str(out), "--to", "silero-hc", "--jobs", "1"]
    with subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, process_group=0) as process:
        deadline = time.monotonic() + 60
        while "running" not in journal_rows(out):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        second = command(zoo, out, "--to", "silero-hc")  # meanwhile, nobody else may
        os.killpg(process.pid, number)  # as a terminal does
        said = process.communicate(timeout=30)[1].decode()
    assert second.returncode == 2
    assert f"another migration is at work here: process {process.pid} on " in second.stderr
    if number == signal.SIGINT:
        assert process.returncode == 130
        assert said == "interrupted\n  the same command goes on where it was\n"
    else:
        assert (process.returncode, said) == (128 + number, "")
    assert hidden(out) == {"journal.sqlite", "lock"}


def test_a_file_that_becomes_too_large_is_a_failure_of_its_model(zoo: Path, tmp_path: Path) -> None:
    """A quota that every process carries: no file may grow over 14,000 bytes."""
    import resource

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (14_000, resource.RLIM_INFINITY))

    small = make_zoo(tmp_path / "zoo", {"a.onnx": OLD, "p.onnx": PLAIN})
    out = tmp_path / "out"
    assert sys.platform == "linux"
    ran = command(small, out, "--to", "silero-hc", "-j", 1, preexec_fn=limit)
    assert ran.returncode == 3, ran.stderr
    assert "journal" in ran.stderr or "space" in ran.stderr
    ran = command(small, out, "--to", "silero-hc", "-j", 1)
    assert ran.returncode == 0, ran.stderr
    assert tree(out).keys() == {"a.onnx", "p.onnx"}
    assert hidden(out) == {"journal.sqlite", "lock"}
