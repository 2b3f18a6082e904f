"""A short part of the fault suite; `make faults` runs all of it."""

import pytest

from tests.faults.bad_folder import N_ENTRIES, write_bad_folder
from tests.faults.fuzz import FUZZERS, fuzz
from tests.faults.kill import kill_and_continue
from tests.faults.material import TASKS, file_hashes, run_command
from vtcav_jax.data import open_source
from vtcav_jax.runs import lock

pytestmark = pytest.mark.slow

SEED = 1


def test_damaged_input_is_an_error_with_a_sentence(material, tmp_path):
    results = fuzz(material, tmp_path, SEED, 20)
    assert [result.kind for result in results] == list(FUZZERS)
    assert not [crash for result in results for crash in result.crashes]
    assert all(result.n_accepted < result.n_cases for result in results)


def test_faulty_entries_of_a_folder_do_not_end_a_task(material, tmp_path):
    n_readable, n_broken = write_bad_folder(tmp_path / "bad", SEED)
    assert n_readable + n_broken == N_ENTRIES == len(open_source(tmp_path / "bad").items)
    code, output = run_command(TASKS["predict"].command(material, tmp_path / "out", str(tmp_path / "bad")))
    assert code == 0 and f"{n_broken} files could not be read" in output
    assert f"Read {n_readable} of {N_ENTRIES} videos" in output and "\x1b" not in output


def test_a_killed_task_continues_to_the_same_bytes(material, tmp_path):
    result = kill_and_continue("preprocess", material, tmp_path / "kill", SEED, kills=2)
    assert not result.faults


@pytest.mark.parametrize("name", ["preprocess", "mine_concepts", "attribute", "render_world", "train", "tcav"])
def test_a_folder_that_another_process_writes_is_refused(material, tmp_path, name):
    out = tmp_path / "out"
    with lock.exclusive_folders():
        for folder in (out, out / "run"):
            lock.lock_folder(folder)
        before = file_hashes(tmp_path)
        code, output = run_command(TASKS[name].command(material, out))
    assert code == 1 and "another process is using" in output
    assert {file for file in file_hashes(tmp_path) if "cache" not in file} == set(before)
