"""A full disk ends every task with one sentence and no half-written file, and the command can be repeated."""

import pytest

from tests.faults.material import REFUSED, TASKS, quick
from tests.support.cli_runner import run_cli
from vtcav_jax import atomic

FULL_DISK = """
import errno, os
n_files = 0
def limited(rename):
    def rename_until_full(*paths):
        global n_files
        n_files += 1
        if n_files > FILES_UNTIL_FULL:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        rename(*paths)
    return rename_until_full
os.replace, os.rename = limited(os.replace), limited(os.rename)
main.start()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "files_until_full"),
    [
        *(("attribute", 2), ("motion", 2), ("tcav", 4), ("discover", 2), ("train", 2), ("mine_concepts", 4)),
        ("preprocess", 0),
    ],
)
def test_a_full_disk(material, tmp_path, name, files_until_full):
    command = quick(TASKS[name].command(material, tmp_path / "out"))
    code, output, errors = run_cli(*command, program=f"FILES_UNTIL_FULL = {files_until_full}{FULL_DISK}")
    (error,) = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert code == REFUSED and "Traceback" not in output + errors
    assert "is full; free some space and run the command again, finished work is saved" in error
    assert not [path for path in tmp_path.rglob("*") if atomic.is_temporary(path)]
    code, output, errors = run_cli(*command)
    assert code == 0, output + errors
