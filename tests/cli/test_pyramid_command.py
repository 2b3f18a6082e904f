"""The command of the task pyramid, from clips to tables: alignment with concept vectors, and runs with few clips."""

import csv
import json
from dataclasses import fields

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.support.cli_runner import command_context
from vtcav_jax import models
from vtcav_jax.cli.commands.pyramid import PyramidArguments, PyramidConfig, align_vectors, pyramid
from vtcav_jax.fingerprint import fingerprint
from vtcav_jax.pyramid import Edge, Node, Pyramid, Selection
from vtcav_jax.report.run_reader import open_run_folder
from vtcav_jax.runs.tcav_rows import VectorRow
from vtcav_jax.tcav.vector_file import VECTORS_FILE

QUICK = PyramidConfig(depth=1, channel_selection="top:2", ig_steps=1, draws=2)


def pyramid_with(channels):
    nodes = [Node(0, "convs.2", channel, *[0.0] * 7) for channel in channels]
    maps = tuple(np.zeros((1, 1, 1, 1)) for _ in nodes)
    edges = (Edge(-1, 0, 1.0, 1.0, 1.0),)
    return Pyramid((("convs.2",),), tuple(nodes), edges, np.zeros(1), maps, (1.0,), Selection(), "gradient", 1.0)


def vector_row(auc, auc_p):
    columns = {
        "stage": "convs.2",
        "concept": "a/b",
        "clip_type": "static",
        "negatives": "others",
        "auc": auc,
        "auc_p": auc_p,
    }
    return VectorRow(**{field.name: columns.get(field.name, field.type(0)) for field in fields(VectorRow)})  # type: ignore (columns are scalars)


def test_component_and_rank_of_a_vector_along_each_channel():
    vector = np.array([[0.0, 0.3, -0.4], [0.0, 0.0, -0.2]], np.float32)  # two positions, three channels
    vectors = {"convs.2|a/b/static/others": vector, "convs.1|a/b/static/others": vector}
    rows = align_vectors("left", pyramid_with([2, 1]), vectors, [vector_row(0.9, 0.01)])
    length = np.hypot(0.3, 0.6)
    assert [(row.node, row.channel, row.rank, row.channels) for row in rows] == [(0, 2, 1, 3), (1, 1, 2, 3)]
    np.testing.assert_allclose([row.cosine_share for row in rows], [-0.6 / length, 0.3 / length], rtol=1e-6)
    assert {(row.concept, row.clip_type, row.negatives, row.auc) for row in rows} == {("a/b", "static", "others", 0.9)}
    assert np.isnan(align_vectors("left", pyramid_with([2]), vectors, [])[0].auc)


def write_vectors(folder, stage):
    folder.mkdir()
    about = {"weights": fingerprint(models.load("worlds_cnn").model), "pool": "mean", "norm": {}, "intercept": {}}
    arrays = {f"{stage}|ring/static/others": np.eye(64, dtype=np.float32)[5]}
    save_file(arrays, folder / VECTORS_FILE, metadata={"about": json.dumps(about)})
    (folder / "run.json").write_text('{"request": {}}')
    return folder


def run_pyramid(run, videos, **options):
    pyramid(PyramidArguments(model="worlds_cnn", videos=videos, run=run, config=QUICK, **options), command_context())


def test_vectors_at_none_of_the_levels_are_an_error_before_any_video_is_read(tmp_path):
    concept_run = write_vectors(tmp_path / "tcav", "pool")
    with pytest.raises(ValueError, match=r"are at pool, none of which is a level of the pyramid \(convs.2\)"):
        run_pyramid(tmp_path / "run", "worlds:small:4:7", targets=("shape",), concept_run=concept_run)
    assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match=r"the target is at convs.0, and no stage"):
        run_pyramid(tmp_path / "run", "worlds:small:4:7", targets=("convs.0#3",))


@pytest.mark.slow
def test_runs_with_concept_vectors_on_several_clips_and_on_one(tmp_path):
    concept_run = write_vectors(tmp_path / "tcav", "convs.2")
    for name, clips in (("many", 8), ("single", 1)):
        spec = f"worlds:small:{clips}:7"
        run_pyramid(tmp_path / name, spec, targets=("shape",), concept_run=concept_run, num_workers=0)
    many, single = (open_run_folder(tmp_path / name) for name in ("many", "single"))
    assert many.pyramid_facts[0].n_reference_clips == 4 and not many.pyramid_facts[0].same_clips
    assert single.pyramid_facts[0].n_reference_clips == 0 and single.pyramid_facts[0].same_clips
    for run in (many, single):
        assert len(run.node_rows) == 2 and all(row.relevance > 0 for row in run.node_rows)
        assert [row.cosine_share for row in run.concept_alignment_rows] == [
            float(row.channel == 5) for row in run.node_rows
        ]
        page = (run.folder / "report" / "index.html").read_text()
        assert "ring, static vs others" in page
        assert ("activity is measured from 0" in page) == (run is single)
    with (tmp_path / "many" / "pyramid_concepts.csv").open() as file:
        assert next(csv.reader(file))[4:7] == ["concept", "clip_type", "negatives"]
