"""Processes that differ or cannot connect end with one sentence before they compute, and SIGTERM ends each."""

import shutil
import signal
import socket

import pytest

from tests.faults.processes import run_processes
from tests.support.cli_runner import run_cli, stop_cli_server
from vtcav_jax.cli import process_agreement
from vtcav_jax.data.open import open_source
from vtcav_jax.data.world_export import write_clips
from vtcav_jax.worlds import make_clips

PREDICT = ["predict", "--model=worlds_cnn", "--videos=worlds:small:6:3"]
GIVE_UP = "from vtcav_jax import process_connection; process_connection.LIMIT_SECONDS = 3; main.start()"


@pytest.fixture(scope="module", autouse=True)
def _servers():
    yield
    stop_cli_server()


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Folders of two machines with the same path `videos`, of which the second lacks a clip."""
    root = tmp_path_factory.mktemp("machines")
    write_clips(make_clips("small", 3, 1), root / "0/videos")
    shutil.copytree(root / "0/videos", root / "1/videos")
    table = root / "1/videos/manifest.csv"
    table.write_text("".join(table.read_text().splitlines(keepends=True)[:-1]))
    (root / "2").mkdir()
    return [root / name for name in "012"]


def error_lines(results):
    return [next(line for line in output.splitlines() if line.startswith("error:")) for _, output in results]


def test_different_flags_end_all_processes(tmp_path):
    table = tmp_path / "table.csv"
    command = [*PREDICT, f"--out={table}"]
    further = (["--batch_size=4"], ["--batch_size=8", "--videos=worlds:small:6:4"])
    results = run_processes(command, 2, further=further)
    assert [code for code, _ in results] == [1, 1], results
    assert not table.exists()
    first, second = error_lines(results)
    assert first == second
    assert "--batch_size is 4 in process 0 and 8 in process 1" in first
    assert "--videos is worlds:small:6:3 in process 0 and worlds:small:6:4 in process 1" in first


def test_different_items_end_all_processes(folders, tmp_path):
    table = tmp_path / "table.csv"
    command = ["predict", "--model=worlds_cnn", "--videos=videos/manifest.csv", f"--out={table}"]
    results = run_processes(command, 2, folders=folders[:2])
    assert [code for code, _ in results] == [1, 1], results
    assert not table.exists()
    for line in error_lines(results):
        assert "--videos: the processes see different videos in videos/manifest.csv" in line
        assert "process 0 has 3 items and process 1 has 2" in line


def test_videos_that_a_process_cannot_open_end_all(folders):
    command = ["predict", "--model=worlds_cnn", "--videos=videos/manifest.csv"]
    results = run_processes(command, 2, folders=folders[::2])
    assert [code for code, _ in results] == [1, 1], results
    first, second = error_lines(results)
    assert "--videos: process 1 cannot open the videos:" in first
    assert "videos/manifest.csv" in second and "process 1" not in second


def test_sigterm_ends_a_connected_process():
    program = (
        "import os, time; from vtcav_jax import distributed;"
        " number = int(sys.argv[-1].partition('=')[2]); address = sys.argv[-3].partition('=')[2];"
        " distributed.connect(address, 2, number);"
        " os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)"
    )
    results = run_processes(PREDICT, 2, program=f"import sys; {program}")
    assert [code for code, _ in results] == [-signal.SIGTERM] * 2, results


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (0, "--coordinator: expected all 2 processes within 3 seconds at localhost:"),
        (1, "--coordinator: process 0 does not accept connections at localhost:"),
    ],
)
def test_a_missing_process_is_an_error(number, message):
    further = [[], []]
    further[1 - number] = ["--batch_size=none"]  # ends before it connects
    result = run_processes(PREDICT, 2, further=further, program=GIVE_UP)[number]
    assert result[0] == 1, result
    assert "waiting for " in result[1] and message in error_lines([result])[0]


def test_class_names_of_a_file_that_differs_end_all_processes(folders):
    for i, folder in enumerate(folders[:2]):
        folder.joinpath("shapes.txt").write_text("".join(f"shape {i} {j}\n" for j in range(4)))
    results = run_processes([*PREDICT, "--labels=shape:shapes.txt"], 2, folders=folders[:2])
    assert [code for code, _ in results] == [1, 1], results
    assert all("the hash of the class names of worlds_cnn is " in line for line in error_lines(results))


def test_a_port_in_use_is_an_error_of_process_0():
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
        code, _, errors = run_cli(*PREDICT, f"--coordinator=localhost:{port}", "--num_processes=2", "--process_id=0")
    assert code == 1
    assert f"--coordinator: process 0 cannot use port {port} (Address already in use)" in errors


def test_auto_outside_a_cluster_asks_for_address_and_numbers():
    code, _, errors = run_cli(*PREDICT, "--coordinator=auto")
    assert code == 1
    assert "pass --coordinator=HOST:PORT and --num_processes and --process_id" in errors


def test_the_first_different_item_is_named(monkeypatch, folders):
    source = process_agreement.open_in_all_processes(lambda: open_source(str(folders[0] / "videos/manifest.csv")))
    rows = [process_agreement._item_facts(item) for item in source.items]
    resized = [*rows[:1], [*rows[1][:-1], 7], *rows[2:]]
    monkeypatch.setattr(process_agreement.distributed, "all_gather", lambda value: [value, resized])
    expected = f"of item 2, {rows[1][0]}, size in bytes is {rows[1][-1]} in process 0 and 7 in process 1"
    assert process_agreement._first_difference(source, 1, 3) == expected
