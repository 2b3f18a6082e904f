"""Loader: the same clips in the same order for any number of workers, and isolation of broken files."""

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from tests.data.test_decode import audio_only, write
from tests.support.faulty_source import FaultySource
from vtcav_jax.clip_spec import ClipSpec
from vtcav_jax.data import ReadResult, SamplingConfig, SourceItem, failure_table, open_source, stream, write_failures

SMALL = ClipSpec(frames=4, size=32, interval=2)
KEPT = SamplingConfig(normalise=False)


def contents(reads: Iterable[ReadResult]):
    """Return all fields of a result that do not depend on the process."""
    return [(r.index, r.item, r.failure, r.clip and (r.clip.identity, r.clip.video.tobytes())) for r in reads]


def close(reads: Iterator[ReadResult]) -> None:
    assert isinstance(reads, Generator)  # like `stream` with workers
    reads.close()


def children():
    return {child.pid for child in psutil.Process().children(recursive=True)}


@pytest.fixture(autouse=True)
def nobody_is_left():
    before = children()
    yield
    assert children() <= before


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Make 20 files, 5 of them broken in different ways."""
    folder = tmp_path_factory.mktemp("mixed")
    whole = write(folder / "00.mp4", "libx264", total=24).read_bytes()
    for i in range(1, 20):
        (folder / f"{i:02d}.mp4").write_bytes(whole)
    (folder / "03.mp4").write_bytes(whole[: len(whole) // 2])
    (folder / "07.mp4").write_bytes(b"")
    (folder / "11.mp4").write_text("a letter, not a film\n" * 100)
    (folder / "12.mp4").unlink()
    audio_only(folder / "12.mp4")
    (folder / "19.mp4").write_bytes(np.random.default_rng(0).bytes(20000))
    return folder


@pytest.mark.slow
def test_order_and_clips_do_not_depend_on_the_number_of_workers(mixed):
    source, how = open_source(mixed), SamplingConfig(normalise=False, random_start=3)
    alone = contents(stream(source, SMALL, how, num_workers=0))
    assert [index for index, *_ in alone] == list(range(20))
    for workers, ahead in ((1, 1), (2, None), (2, 3)):
        assert contents(stream(source, SMALL, how, num_workers=workers, prefetch=ahead)) == alone


def test_broken_files_are_reported_and_others_are_read(mixed, tmp_path):
    reads = list(stream(open_source(mixed), SMALL, KEPT, num_workers=2))
    failed = {read.item.name: read.failure for read in reads if read.clip is None}
    reasons = {
        "03.mp4": "truncated",
        "07.mp4": "empty",
        "11.mp4": "not a video",
        "12.mp4": "audio but no",
        "19.mp4": "not a video",
    }
    assert failed.keys() == reasons.keys() and all(reason in str(failed[name]) for name, reason in reasons.items())
    table = failure_table(reads)
    assert table.startswith("5 files could not be read:\n") and all(name in table for name in reasons)
    assert table.count("empty; expected a video") == 1 and "00.mp4" not in table
    write_failures(tmp_path / "failures.csv", reads)
    with (tmp_path / "failures.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == sorted(reasons) and rows[1]["reason"] == failed["07.mp4"]
    assert rows[0]["file"] == str(mixed / "03.mp4") and os.listdir(tmp_path) == ["failures.csv"]


def test_the_failure_table_groups_by_reason():
    tricks = ("refuse",) * 2
    refused = list(stream(FaultySource(tricks), SMALL, num_workers=0))
    cut = [
        ReadResult(i, SourceItem(f"{i}.mp4", path=Path(f"/x/{i}.mp4")), None, f"{i}.mp4 is no mp4: {i} of 60 are there")
        for i in range(25)
    ]
    lines = failure_table([refused[0], *cut, refused[1]]).splitlines()
    assert lines[0] == "27 clips could not be read:"
    assert lines[1].split(maxsplit=1) == ["25", "no mp4: .. of .. are there"]
    assert lines[21].strip() == "19.mp4" and lines[22].strip() == "and 5 more"
    assert lines[23].split() == ["2", "refused"] and [line.strip() for line in lines[24:]] == ["0 refuse", "1 refuse"]
    forbidden = [ReadResult(i, SourceItem(f"{i}.mp4"), None, f"{i}.mp4 answered 403 Forbidden") for i in range(2)]
    assert failure_table(forbidden).splitlines()[1].split(maxsplit=1) == ["2", "answered 403 Forbidden"]
    assert failure_table(cut[:1]) == "1 file could not be read: 0.mp4: no mp4: 0 of 60 are there"
    assert failure_table(stream(FaultySource(("fine",)), SMALL, num_workers=0)) == "nothing failed"


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_dead_worker_loses_only_its_current_file(workers):
    tricks = ("fine", "kill", "fine", "exit", "exit", "refuse", "fault", "disk", "fine", "fine")
    reads = list(stream(FaultySource(tricks), SMALL, num_workers=workers))
    assert [read.index for read in reads] == list(range(len(tricks)))
    for read, trick in zip(reads, tricks):
        assert (read.clip is None) == (trick != "fine")
        if read.clip is not None:
            assert read.clip.identity == str(read.index)
    reasons = {1: "SIGKILL, possibly out of memory", 3: "it ended with status 3", 5: "refused", 6: "SIGSEGV"}
    for index, reason in (reasons | {7: "Input/output error"}).items():
        assert reason in str(reads[index].failure)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.slow
def test_a_timeout_loses_only_its_own_clip(workers):
    tricks = ("fine", "sleep 600", "fine", "sleep 600", "fine")
    reads = list(stream(FaultySource(tricks), SMALL, num_workers=workers, timeout=2.0))
    assert [read.clip is None for read in reads] == [trick != "fine" for trick in tricks]
    assert reads[1].failure == (
        "1 sleep 600 could not be read within 2 s; remove it, or use num_workers=0 (no time limit)"
    )
    assert "2 clips could not be read" in failure_table(reads)


def test_workers_are_processes_without_jax():
    assert "jax" in sys.modules
    reads = list(stream(FaultySource(("jax",) * 8), SMALL, num_workers=2))
    processes = {int(read.clip.frames[0, 0]) for read in reads if read.clip}
    assert len(processes) <= 2 and os.getpid() not in processes


def test_a_bug_is_raised_and_not_reported_as_a_failed_file():
    for workers in (0, 1):
        with pytest.raises(ZeroDivisionError, match="a bug"):
            list(stream(FaultySource(("fine", "bug", "fine")), SMALL, num_workers=workers))


def test_prefetch_bounds_reading_ahead(tmp_path):
    reads = stream(FaultySource((f"touch {tmp_path}",) * 30), SMALL, num_workers=2, prefetch=5)
    assert os.listdir(tmp_path) == []  # nothing is read before the first request
    for taken in range(1, 6):
        assert next(reads).index == taken - 1
        time.sleep(0.05)
        assert len(os.listdir(tmp_path)) <= taken + 4
    close(reads)


def test_endless_and_repeated_positions():
    def forever():
        while True:
            yield from (2, 0, (1, 2))

    reads = stream(FaultySource(("fine",) * 3), SMALL, positions=forever(), num_workers=2)
    assert [next(reads).index for _ in range(9)] == [2, 0, 2] * 3
    close(reads)


def test_epochs_draw_different_random_starts(mixed):
    source, how = open_source(mixed), SamplingConfig(normalise=False, random_start=5)

    def frames_of_epochs(num_workers: int) -> list[list]:
        reads = stream(source, SMALL, how, positions=[(e, 0) for e in range(8)], num_workers=num_workers)
        return [read.clip.frames.tolist() for read in reads if read.clip]

    frames, again = frames_of_epochs(1), frames_of_epochs(0)
    assert len(frames) == 8
    assert frames == again and len({str(each) for each in frames}) > 3


def test_closing_does_not_wait_for_pending_reads():
    reads = stream(FaultySource(("fine", "sleep 600", "sleep 600")), SMALL, num_workers=2)
    assert next(reads).index == 0
    close(reads)
    assert list(reads) == []


def test_invalid_arguments_give_the_reason():
    wrong: tuple[dict[str, Any], ...] = (dict(num_workers=-1), dict(prefetch=0), dict(timeout=0.0))
    for options in wrong:
        with pytest.raises(ValueError, match="num_workers >= 0, prefetch >= 1 and timeout > 0"):
            stream(FaultySource(("fine",)), SMALL, **options)

    class Local(FaultySource):
        pass

    with pytest.raises(TypeError, match="use num_workers=0"):
        list(stream(Local(("fine",)), SMALL, num_workers=1))
    assert len(list(stream(Local(("fine",)), SMALL, num_workers=0))) == 1


PROGRAM = """
import sys
from vtcav_jax.clip_spec import ClipSpec
from vtcav_jax.data import open_source, stream
for read in stream(open_source("worlds:large:100000"), ClipSpec(frames=16, size=64), num_workers=2):
    print(read.index, flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.usefixtures("interruptible")
def test_no_worker_outlives_the_program(tmp_path, how):
    (tmp_path / "program.py").write_text(PROGRAM)  # without the guard that multiprocessing requires
    command = [sys.executable, str(tmp_path / "program.py")]
    program = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
    assert program.stdout and program.stderr
    with program.stdout, program.stderr:
        assert [int(program.stdout.readline()) for _ in range(3)] == [0, 1, 2]
        workers = psutil.Process(program.pid).children()
        assert len(workers) == 2
        if how == signal.SIGINT:
            os.killpg(program.pid, how)  # to all processes, like a terminal
        else:
            program.send_signal(how)
        assert program.wait(120) != 0
        words = program.stderr.read().decode()
        assert words.count("Traceback") == (how == signal.SIGINT) and "Exception ignored" not in words
    assert not psutil.wait_procs(workers, timeout=60)[1]
