"""Several processes write the same bytes as one, and what they lost is computed when the command is repeated."""

import shutil
import time

import pytest

from tests.faults.material import TASKS, file_hashes
from tests.faults.processes import finish, run_processes, start_processes
from vtcav_jax.cli.arguments import ProcessArguments
from vtcav_jax.cli.tasks import TASKS as ALL_TASKS

SHARED_TASKS = {name for name, task in ALL_TASKS.items() if issubclass(task.argument_class, ProcessArguments)}


def test_every_task_over_videos_is_shared():
    expected = {"predict", "preprocess", "attribute", "motion", "mine_concepts", "discover", "evaluate_methods", "tcav"}
    assert expected == SHARED_TASKS


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "count"), [(name, 3 if name in ("attribute", "discover") else 2) for name in sorted(SHARED_TASKS)]
)
def test_processes_write_the_bytes_of_one(material, tmp_path, name, count):
    task, folder = TASKS[name], tmp_path / "work"
    command = task.command(material, folder / "out")
    folder.mkdir()
    ((code, output),) = run_processes(command, 1)
    assert code == 0, output
    expected = file_hashes(folder, task.unequal)
    shutil.rmtree(folder)
    folder.mkdir()
    results = run_processes(command, count)
    assert [code for code, _ in results] == [0] * count, results
    lines = [line for _, output in results[1:] for line in output.splitlines()]
    assert all(line.startswith(("[Gloo]", "waiting for")) for line in lines), lines
    assert expected and file_hashes(folder, task.unequal) == expected


@pytest.mark.slow
def test_a_lost_process_is_an_error_of_the_others_and_repeating_the_command_completes_the_run(material, tmp_path):
    task, folder = TASKS["motion"], tmp_path / "work"
    command = task.command(material, folder / "out")
    assert run_processes(command, 1)[0][0] == 0
    expected = file_hashes(folder, task.unequal)
    shutil.rmtree(folder)
    first, second = start_processes(command, 2)
    while first.poll() is None and not list(folder.glob("out/clips/*.json")):
        time.sleep(0.05)
    second.kill()
    (code, output), _ = finish([first, second])
    assert code != 0 and "another process of this run has ended" in output, output
    results = run_processes(command, 2)
    assert [code for code, _ in results] == [0, 0], results
    assert file_hashes(folder, task.unequal) == expected
