"""Experiments whose targets are in tar files or at addresses: the same results as from files."""

import tarfile
from dataclasses import replace

import pytest

from tests.support.planted_experiment import NETWORK, QUICK
from vtcav_jax.concepts import read_concepts
from vtcav_jax.data import open_source
from vtcav_jax.tcav.experiment.run import run_tcav

CONFIG = replace(QUICK, stages=("pool",), max_target_clips=7)


def run(clip_folder, source, folder):
    return run_tcav(NETWORK, ["red"], source, read_concepts(clip_folder / "concepts"), CONFIG, folder)


def derivatives(results):
    return [(row.concept, row.clip_type, row.derivative) for row in results.rows]


@pytest.mark.slow
def test_targets_in_tar_files_and_at_addresses(clip_folder, tmp_path):
    pytest.importorskip("aiohttp", reason="addresses need fsspec and aiohttp (pip install 'vtcav-jax[urls]')")
    from tests.support.range_server import serve

    paths = sorted((clip_folder / "targets" / "red").glob("*.mp4"))
    with tarfile.open(tmp_path / "s.tar", "w") as archive:
        for path in paths:
            archive.add(path, f"{path.stem}.mp4")
            (tmp_path / "label").write_text("red")
            archive.add(tmp_path / "label", f"{path.stem}.cls")
    (tmp_path / "list.csv").write_text("path,label\n" + "".join(f"{path},red\n" for path in paths))
    local = run(clip_folder, open_source(tmp_path / "list.csv"), tmp_path / "local")
    shards = run(clip_folder, open_source(tmp_path / "s.tar"), tmp_path / "shards")
    assert derivatives(shards) == derivatives(local) and not any("checksums" in note for note in shards.notes)
    with serve() as server:
        server.files = {path.name: path.read_bytes() for path in paths}
        rows = "".join(f"{path.name},red\n" for path in paths)
        server.files["list.csv"] = f"path,label\n{rows}gone.mp4,red\n".encode()
        source = open_source(server.url("list.csv"))
        remote = run_tcav(
            *(NETWORK, ["red"], source, read_concepts(clip_folder / "concepts")),
            *(replace(CONFIG, max_target_clips=8), tmp_path / "remote"),
        )
    assert [(failure.item.name, "404 Not Found" in str(failure.failure)) for failure in remote.failures] == [
        ("gone.mp4", True)
    ]
    assert any("7 target videos of" in note and "store's checksums" in note for note in remote.notes)
    for mine, theirs in zip(derivatives(remote), derivatives(local), strict=True):
        assert mine[:2] == theirs[:2] and mine[2] == pytest.approx(theirs[2], rel=1e-5)
