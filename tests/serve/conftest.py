"""One made run for all tests of the server, and clients of it."""

import pytest

pytest.importorskip("starlette", reason="the server needs starlette (pip install starlette uvicorn)")

from starlette.testclient import TestClient

from tests.support.served_runs import make_run
from vtcav_jax.serve.access import AccessRules
from vtcav_jax.serve.server import make_app
from vtcav_jax.serve.workspace import open_workspace

PORT = 8123


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """Return a run with 60 clips, which no test changes but in its concept folder."""
    return make_run(tmp_path_factory.mktemp("served") / "run", 60, concept_clips=30)


@pytest.fixture(scope="session")
def workspace(made):
    space = open_workspace([made.folder])
    yield space
    space.session.close()


@pytest.fixture
def rules():
    return AccessRules(PORT)


@pytest.fixture
def client(workspace, rules):
    """Return a client that has opened the address with the token."""
    with TestClient(make_app(workspace, rules), base_url=f"http://127.0.0.1:{PORT}") as opened:
        assert opened.get("/", params={"token": rules.token}).status_code == 200
        yield opened


@pytest.fixture(autouse=True)
def _no_review(made):
    """Remove the verdicts of the previous test."""
    yield
    (made.concepts / "review.csv").unlink(missing_ok=True)
