"""Migrations on a Dask cluster: what is refused, what is done, and what a lost worker or scheduler costs."""

from __future__ import annotations

import signal
import socket
import sqlite3
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from dask_cluster import Programs, kill, models_in_work, running, wait_until
from distributed import Client, LocalCluster
from zoo_models import NEW, OLD, ONNXFIX, PLAIN, TO, here, hidden, journal, make_zoo, tree

import onnxfix
from onnxfix.errors import ExitCode, UsageError
from onnxfix.zoo.cluster import crew, run_in_cluster
from onnxfix.zoo.cluster.crew import ClusterError
from onnxfix.zoo.cluster.sight import Sight
from onnxfix.zoo.cluster.station import Room
from onnxfix.zoo.limits import Limits
from onnxfix.zoo.migrate import migrate
from onnxfix.zoo.migration import Request, Watcher
from onnxfix.zoo.outcome import Failed, Outcome
from onnxfix.zoo.pool import Event, Moved, Started
from onnxfix.zoo.preview import check
from onnxfix.zoo.proving import prove
from onnxfix.zoo.survey import survey

FAULTS = {"crash": "Crashed", "kill": "Crashed", "memory": "OutOfMemory", "hang": "Hung", "bug": "Bug"}
_PORT = "127.0.0.1:0"
_FAULT = ";".join(f"{fault}:{fault}.onnx" for fault in FAULTS)


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    """Returns a cluster of two workers, each a daemonic process below a nanny."""
    options = {"n_workers": 2, "threads_per_worker": 1, "memory_limit": 0, "dashboard_address": _PORT}
    with LocalCluster(**options, env={"ONNXFIX_TEST_FAULT": _FAULT}) as cluster:
        yield cluster


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    return make_zoo(tmp_path / "zoo", {"a.onnx": OLD, "sub/b b.onnx": OLD, "m.onnx": NEW, "p.onnx": PLAIN})


def _migrate(zoo: Path, out: Path, address: str, **limits: float) -> dict[str, str]:
    request = Request(out, TO, replace(Limits(), **limits))  # type: ignore[arg-type]
    migration = migrate(survey(zoo), request, runner=run_in_cluster(address))
    return {path: one.word for path, one in migration.outcomes}


def _local(zoo: Path, out: Path) -> Path:
    migrate(survey(zoo), Request(out, TO), runner=here)
    return out


# What is refused.


def test_dask_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(UsageError, match=r"a cluster needs Dask[^\n]*\n  pip install 'onnxfix\[dask\]'"):
        run_in_cluster("tcp://127.0.0.1:8786")


@pytest.mark.parametrize(
    ("address", "kind", "message"),
    [
        ("tcp://127.0.0.1:1", ClusterError, "tcp://127.0.0.1:1: no scheduler answers within 0 s"),
        ("nonsense://127.0.0.1:1", UsageError, "nonsense://127.0.0.1:1: this is no address of a scheduler"),
        ("", UsageError, "this is no address of a scheduler"),
        ("nonsense", UsageError, "nonsense: this is no address of a scheduler"),
        ("127.0.0.1:no", UsageError, "127.0.0.1:no: this is no address of a scheduler"),
        ("tcp://", UsageError, "tcp://: this is no address of a scheduler"),
    ],
)
def test_the_scheduler_must_answer(
    address: str, kind: type[Exception], message: str, monkeypatch: pytest.MonkeyPatch, zoo: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr(crew, "CONNECT", 0.4)
    with pytest.raises(kind, match=message):
        _migrate(zoo, tmp_path / "out", address)
    assert not (tmp_path / "out").exists()


def test_workers_must_be_there_and_have_this_version(
    monkeypatch: pytest.MonkeyPatch, cluster: LocalCluster, zoo: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr(crew, "ARRIVE", 0.2)
    message = r"no workers, and none came within 0 s\n  dask worker inproc://"
    with (
        LocalCluster(n_workers=0, processes=False, dashboard_address=_PORT) as empty,
        pytest.raises(ClusterError, match=message),
    ):
        _migrate(zoo, tmp_path / "out", empty.scheduler_address)
    monkeypatch.setattr(crew, "__version__", "0.0.9")
    with pytest.raises(ClusterError, match=r"tcp://127.*: a worker has onnxfix .*, and this is 0\.0\.9"):
        _migrate(zoo, tmp_path / "out", cluster.scheduler_address)
    assert not (tmp_path / "out").exists()


def test_workers_must_see_what_is_seen_here(
    monkeypatch: pytest.MonkeyPatch, cluster: LocalCluster, zoo: Path, tmp_path: Path
) -> None:
    """All processes of this test share one disk: what is told to the workers is what another machine would see."""
    status = (zoo / "a.onnx").stat()
    true = Sight(
        str(zoo / "a.onnx"), status.st_size, int(status.st_mtime), str(tmp_path / "out" / ".onnxfix" / "stage")
    )
    (tmp_path / "file").write_text("")
    for sight, message in (
        (replace(true, source="/elsewhere/a.onnx"), r"tcp://.*: /elsewhere/a\.onnx: a worker does not see the zoo"),
        (replace(true, size=1), r"a\.onnx: a worker sees another zoo under the same name"),
        (replace(true, time=1), r"a\.onnx: a worker sees another zoo under the same name"),
        (Sight(urls=("memory://zoo/a.onnx",)), "memory://zoo/a.onnx: no worker sees this place"),
        (Sight(urls=("nonsense://zoo/a.onnx",)), "nonsense://zoo/a.onnx: a worker cannot use this place: "),
        (replace(true, stage="/elsewhere/stage"), "/elsewhere/stage: a worker does not see the destination"),
        (replace(true, stage=str(tmp_path / "file")), "file: a worker cannot write to the destination: Not a dir"),
    ):
        monkeypatch.setattr("onnxfix.zoo.cluster.run.sight_of", lambda task, sight=sight: sight)
        with pytest.raises(ClusterError, match=message) as caught:
            _migrate(zoo, tmp_path / "out", cluster.scheduler_address)
        assert caught.value.exit_code == ExitCode.NOT_CONVERTED
    assert tree(tmp_path / "out") == {}
    assert hidden(tmp_path / "out") == {"journal.sqlite", "lock"}


def test_what_workers_write_must_be_seen_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    unseen = crew._sight_trouble("/elsewhere/stage/look")
    assert unseen is not None
    assert (unseen.message, unseen.where) == (
        "what a worker writes to the destination is not there", "/elsewhere/stage/look",
    )  # fmt: skip

    def refuse(path: Path, target: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "rename", refuse)
    alien = crew._sight_trouble(str(tmp_path))
    assert alien is not None
    assert alien.message == "what a worker writes to the destination cannot be moved: Permission denied"


# What is done.


def test_a_cluster_does_what_this_machine_does(cluster: LocalCluster, zoo: Path, tmp_path: Path) -> None:
    (zoo / "cut.onnx").write_bytes(OLD.read_bytes()[:5000])
    (zoo / "tokens.txt").write_text("t")
    told: list[Event] = []

    class Listener(Watcher):
        def happened(self, event: Event) -> None:
            told.append(event)

    runner, out = run_in_cluster(cluster.scheduler_address), tmp_path / "out"
    migrate(survey(zoo), Request(out, TO), Listener(), runner)
    local = _local(zoo, tmp_path / "local")
    assert _everything(out) == _everything(local)
    assert sorted(event.task.path for event in told if isinstance(event, Started)) == sorted(journal(local))
    assert any(isinstance(event, Moved) for event in told)
    again = migrate(survey(zoo), Request(out, TO), None, runner)
    assert again.kept == 4  # the one that failed is tried again

    proven = prove(out, Limits(), runner=runner)
    assert {path: one.word for path, one in proven.outcomes} == {"a.onnx": "verified", "sub/b b.onnx": "verified"}
    checked = check(survey(zoo), Request(None, TO, Limits(jobs=1)), runner=runner)
    assert checked.counts == {"would-change": 2, "unchanged": 1, "skipped": 1, "failed": 1}
    migrate(survey(zoo), Request(None, TO, is_in_place=True), runner=runner)
    assert (zoo / "a.onnx").read_bytes() == (out / "a.onnx").read_bytes()
    assert not list(zoo.glob(".*onnxfix-*"))


def test_a_model_that_comes_to_grief_costs_no_worker(cluster: LocalCluster, tmp_path: Path) -> None:
    names = ["a", "z", *FAULTS.keys() - {"hang"}]
    zoo = make_zoo(tmp_path / "zoo", {f"{name}.onnx": OLD for name in names})
    slow = make_zoo(tmp_path / "slow", {"hang.onnx": OLD})
    workers = {nanny.pid for nanny in cluster.workers.values()}
    runner = run_in_cluster(cluster.scheduler_address)
    found = migrate(survey(zoo), Request(tmp_path / "out", TO, Limits(None, None, 600_000_000)), runner=runner)
    late = migrate(survey(slow), Request(tmp_path / "late", TO, Limits(None, 2)), runner=runner)
    said = {path: one for path, one in (*found.outcomes, *late.outcomes) if isinstance(one, Failed)}
    assert {path: one.kind for path, one in said.items()} == {f"{fault}.onnx": kind for fault, kind in FAULTS.items()}
    assert found.counts["converted"] == 2
    assert "Segmentation fault" in said["crash.onnx"].log
    assert said["memory.onnx"].message == "it took more than 600 MB of memory, and was ended"
    assert hidden(tmp_path / "out") == {"journal.sqlite", "lock"}
    assert {nanny.pid for nanny in cluster.workers.values()} == workers


def test_somebody_may_end_it(cluster: LocalCluster, tmp_path: Path) -> None:
    """Workers let go of what they work on; the command says what it says without a cluster."""
    zoo = make_zoo(tmp_path / "zoo", {"hang.onnx": OLD, "sub/hang.onnx": OLD})
    words = [*ONNXFIX, "migrate", "zoo", "out", "--to", "silero-hc", "--scheduler", cluster.scheduler_address]
    with running(words, tmp_path) as process:
        wait_until(lambda: _states(tmp_path / "out") == ["running", "running"])
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=30)[1]
    assert (process.returncode, said) == (130, "interrupted\n  the same command goes on where it was\n")
    assert hidden(tmp_path / "out") == {"journal.sqlite", "lock"}
    (zoo / "hang.onnx").rename(zoo / "a.onnx")
    (zoo / "sub" / "hang.onnx").rename(zoo / "sub" / "b.onnx")
    assert set(_migrate(zoo, tmp_path / "out", cluster.scheduler_address).values()) == {"converted"}


# Who is lost.


def test_a_lost_worker_costs_no_model(tmp_path: Path) -> None:
    """One of two workers is killed with a model in work, and another one comes that has no onnxfix."""
    kinds = (OLD, OLD, NEW, PLAIN)
    zoo = make_zoo(tmp_path / "zoo", {f"{index % 3}/m {index:02}.onnx": kinds[index % 4] for index in range(16)})
    (tmp_path / "without.py").write_text("import sys; sys.modules['onnxfix'] = None")
    words = [*ONNXFIX, "migrate", "zoo", "out", "--to", "silero-hc"]
    with Programs(tmp_path) as programs:
        lost, kept = programs.add(), programs.add("--no-nanny")
        with Client(programs.address, set_as_default=False) as client:
            client.wait_for_workers(2, 60)
            with running([*words, "--scheduler", programs.address], tmp_path) as process:
                wait_until(lambda: "done" in _states(tmp_path / "out"))
                wait_until(lambda: models_in_work(lost) and models_in_work(kept))
                stopped = [*models_in_work(lost), *models_in_work(kept)]
                for model in stopped:
                    model.suspend()
                time.sleep(0.5)  # both have been given a model
                kill(lost)
                programs.add("--no-nanny", "--preload", str(tmp_path / "without.py"))
                client.wait_for_workers(2, 60)
                for model in models_in_work(kept):
                    model.resume()
                assert "16 models" in process.communicate(timeout=60)[1]
        message = rf"tcp://.*: a worker has no onnxfix\n  pip install onnxfix=={onnxfix.__version__}"
        with pytest.raises(ClusterError, match=message):  # a migration that begins now
            run_in_cluster(programs.address)
    assert _everything(tmp_path / "out") == _everything(_local(zoo, tmp_path / "local"))


def test_a_worker_that_is_started_again_goes_on(tmp_path: Path) -> None:
    """The only one, by its nanny, and under the same address."""
    zoo = make_zoo(tmp_path / "zoo", {f"{index}.onnx": OLD for index in range(6)})
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with Programs(tmp_path) as programs:
        nanny, killed = programs.add("--worker-port", str(port)), []

        class Killer(Watcher):
            def ended(self, path: str, outcome: Outcome) -> None:
                if not killed:
                    killed.extend(one for one in nanny.children() if "spawn_main" in " ".join(one.cmdline()))
                    killed[0].kill()

        migrate(survey(zoo), Request(tmp_path / "out", TO), Killer(), run_in_cluster(programs.address))
    assert _everything(tmp_path / "out") == _everything(_local(zoo, tmp_path / "local"))


def test_a_lost_scheduler_is_told_and_the_same_command_goes_on(tmp_path: Path) -> None:
    zoo, out = make_zoo(tmp_path / "zoo", {"a.onnx": OLD, "hang.onnx": OLD}), tmp_path / "out"
    with Programs(tmp_path) as programs:
        worker = programs.add(fault="hang:hang.onnx")
        words = ["migrate", zoo, out, "--to", "silero-hc", "--scheduler", programs.address]
        with running([*ONNXFIX, *words], tmp_path) as process:
            wait_until(lambda: _states(out) == ["done", "running"])
            programs.scheduler.kill()
            said = process.communicate(timeout=60)[1]
        assert process.returncode == 3
        assert said == (
            f"error: {programs.address}: the scheduler is gone\n"
            "  the same command goes on where it was, when there is one again\n"
        )
        wait_until(lambda: not models_in_work(worker))
    assert _everything(_local(zoo, out)) == _everything(_local(zoo, tmp_path / "local"))


# Memory.


def test_a_model_waits_for_memory_that_others_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxfix.zoo.cluster.station.available_memory", lambda: 100)
    room, looked = Room(), []

    def look() -> None:
        looked.append(len(looked))
        if len(looked) > 1:
            raise InterruptedError

    with (
        room.taken(60, None, look),
        room.taken(40, None, look),
        pytest.raises(InterruptedError),
        room.taken(1, None, look),
    ):
        pass
    looked.clear()
    with room.taken(30, 50, look), pytest.raises(InterruptedError), room.taken(30, 50, look):
        pass  # Dask gives the worker half of the machine
    looked.clear()
    with pytest.raises(InterruptedError), room.taken(101, None, look):
        pass  # others hold it, on the same machine
    monkeypatch.setattr("onnxfix.zoo.cluster.station._WAIT", 0.0)
    with room.taken(101, None, look):  # alone, it is tried in the end
        pass


def _everything(out: Path) -> tuple[dict[str, bytes], set[str], dict[str, dict[str, object]]]:
    return tree(out), hidden(out), journal(out)


def _states(out: Path) -> list[str]:
    """Returns how far the models are, as far as there is a journal."""
    try:
        return [str(row["state"]) for _, row in sorted(journal(out).items())]
    except sqlite3.Error:  # it is being made
        return []
