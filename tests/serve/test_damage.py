"""Damaged files of a run: an error that can be read, never one of the program."""

import random
from collections.abc import Callable

import pytest

from tests.faults.fuzz import damaged, damaged_json
from tests.support.served_runs import STRONGEST, make_run, vector
from vtcav_jax.serve.clip_lists import ClipFilter, clip_page
from vtcav_jax.serve.clip_tables import ClipChoice
from vtcav_jax.serve.clip_views import ClipView
from vtcav_jax.serve.review_store import ReviewChange
from vtcav_jax.serve.workspace import open_workspace

CASES = 120
TARGET, STAGE, VECTOR = STRONGEST[0], STRONGEST[1], vector(STRONGEST[2])
SUFFIXES = (".json", ".csv", ".npz", ".safetensors", ".txt")


def look_at_everything(folder) -> list[str]:
    """Return the errors that a user would read of all views."""
    errors = []

    def attempt(act: Callable[[], object]) -> None:
        try:
            act()
        except (ValueError, OSError, LookupError) as error:
            errors.append(str(error))

    try:
        workspace = open_workspace([folder])
    except (ValueError, OSError) as error:
        return [str(error)]
    run = workspace.runs["run"]
    attempt(workspace.describe)
    attempt(lambda: workspace.tests("run", TARGET))
    attempt(lambda: workspace.bundle(run, f"{STAGE}|{VECTOR}"))
    for task in run.tasks:

        def view(task=task) -> ClipView:
            return ClipView(workspace, run, task, "small_5_000003", 0)

        attempt(lambda task=task: clip_page(run.table(task), ClipChoice(TARGET, STAGE, VECTOR), ClipFilter()))
        attempt(lambda: view().facts(TARGET, STAGE, VECTOR))
        attempt(lambda: view().curves(TARGET, STAGE, VECTOR, TARGET, "gradcam@convs.2"))
        attempt(lambda: view().reproduction(TARGET, STAGE, VECTOR, TARGET, "gradcam@convs.2", 1.0))
    for store in workspace.reviews.values():
        attempt(store.state)
        attempt(lambda store=store: store.save([ReviewChange("ball/dynamic/001.mp4", verdict="keep")]))
    workspace.session.close()
    return errors


@pytest.mark.slow
def test_damaged_files_are_reported_as_such(tmp_path):
    made = make_run(tmp_path / "run", 6, concept_clips=2)
    review = made.concepts / "review.csv"
    review.write_text("file,sha256,verdict,name\nball/dynamic/000.mp4,,keep,x\n")
    paths = sorted(path for path in (*made.folder.rglob("*"), *made.concepts.glob("*.csv")) if path.suffix in SUFFIXES)
    originals = {path: path.read_bytes() for path in paths}
    assert look_at_everything(made.folder) == []
    draw = random.Random(0)
    reported = 0
    for case in range(CASES):
        path = paths[case % len(paths)]
        data = originals[path]
        is_json = path.suffix == ".json" and draw.random() < 0.7
        path.write_bytes(damaged_json(draw, data) if is_json else damaged(draw, data))
        try:
            reported += bool(look_at_everything(made.folder))
        except Exception as error:
            pytest.fail(f"case {case}, {path.name}: {type(error).__name__}: {error}")
        path.write_bytes(data)
        review.write_bytes(originals[review])
    assert reported > CASES / 4  # the others do not matter for what is displayed
