"""Everything here is of the group `remote`; only a run that names this folder collects it (pyproject.toml)."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent / "zoo"))  # zoos that are made there are brought elsewhere here


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.remote)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    """Returns a store that speaks S3, on this machine alone; it is where S3 is looked for while the tests run."""
    from s3_server import ADMIN, Server

    with pytest.MonkeyPatch.context() as patch:
        server = Server(tmp_path_factory.mktemp("server"))
        patch.setenv("AWS_ENDPOINT_URL", server.url)
        patch.setenv("AWS_ACCESS_KEY_ID", ADMIN.key)
        patch.setenv("AWS_SECRET_ACCESS_KEY", ADMIN.secret)
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("AWS_MAX_ATTEMPTS", "1")  # s3fs tries again by itself
        with server:
            yield server
