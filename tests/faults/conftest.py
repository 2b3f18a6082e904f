import os
import shutil

import pytest
from filelock import FileLock

from tests.faults.material import Material, make_material
from tests.support.cli_runner import stop_cli_server


@pytest.fixture(scope="session")
def material(tmp_path_factory) -> Material:
    """Make the material once, also where several processes run the tests."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent
    folder, finished = root / "fault_material", root / "fault_material.finished"
    with FileLock(root / "fault_material.lock"):
        if not finished.exists():
            shutil.rmtree(folder, ignore_errors=True)
            make_material(folder)
            finished.touch()
    return Material(folder)


@pytest.fixture(scope="module", autouse=True)
def _servers():
    yield
    stop_cli_server()
