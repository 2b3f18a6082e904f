"""Lists of clips: sorting, filters, pages and similar clips, compared with the planted numbers."""

import numpy as np
import pytest

from tests.support.served_runs import CONCEPTS, STAGES, STRONGEST, TARGETS, make_run, vector
from vtcav_jax.serve.clip_lists import PAGE_CLIPS, ClipFilter, clip_page, similar_clips
from vtcav_jax.serve.clip_tables import ClipChoice, EffectTable, MapTable, split_vector
from vtcav_jax.serve.served_run import open_served_run
from vtcav_jax.serve.workspace import open_workspace


@pytest.fixture(scope="module")
def table(made):
    return EffectTable(made.folder)


def choice(target=0, stage=0, concept=0, **more):
    return ClipChoice(TARGETS[target], STAGES[stage], vector(CONCEPTS[concept]), **more)


def all_pages(table, choice, **filters):
    pages = [clip_page(table, choice, ClipFilter(page=page, **filters)) for page in range(3)]
    return [clip["clip"] for page in pages[: pages[0]["pages"]] for clip in page["clips"]]


@pytest.mark.parametrize("concept", range(len(CONCEPTS)))
@pytest.mark.parametrize("sorting", ["up", "down", "name"])
def test_all_clips_in_order(made, table, concept, sorting):
    effects = made.effects[1, 0, concept]
    order = {"up": np.argsort(effects), "down": np.argsort(-effects), "name": np.argsort(made.clips)}[sorting]
    assert all_pages(table, choice(1, 0, concept), sorting=sorting) == [made.clips[i] for i in order]


def test_a_page_is_bounded_and_says_what_it_is(made, table):
    page = clip_page(table, choice(), ClipFilter(page=1))
    assert len(page["clips"]) == PAGE_CLIPS and (page["total"], page["all"], page["pages"]) == (60, 60, 3)
    assert sum(page["histogram"]["counts"]) == 60
    assert page["histogram"]["low"] == pytest.approx(made.effects[0, 0, 0].min())
    assert clip_page(table, choice(), ClipFilter(page=99))["page"] == 2


def test_filters_by_value_name_and_answer(made, table):
    effects = made.effects[0, 0, 0]
    names = all_pages(table, choice(), minimum=-0.5, maximum=0.5)
    assert set(names) == {name for name, value in zip(made.clips, effects) if -0.5 <= value <= 0.5}
    assert all_pages(table, choice(), text="00004") != all_pages(table, choice(), text="_00004")
    assert all_pages(table, choice(), text="SMALL_5_00004") == all_pages(table, choice(), text="_00004")
    assert len(all_pages(table, choice(), text="_00004")) == 10
    right, wrong = (set(all_pages(table, choice(), answers=answers)) for answers in ("right", "wrong"))
    assert right | wrong == set(made.clips) and not right & wrong
    leads = clip_page(table, choice(measure="lead"), ClipFilter("up"))["clips"]
    assert {clip["clip"] for clip in leads if clip["value"] < 0} <= wrong
    empty = clip_page(table, choice(), ClipFilter(minimum=1e9))
    assert (empty["clips"], empty["total"], empty["page"], empty["pages"]) == ([], 0, 0, 1)


def test_similar_clips_have_the_smallest_differences_of_effects(made, table):
    profile = made.effects[0, 1].T
    scaled = profile / profile.std(0)
    distance = np.sqrt(((scaled - scaled[7]) ** 2).mean(1))
    distance[7] = np.inf
    answer = similar_clips(table, choice(0, 1), made.clips[7], 0)
    assert [clip["clip"] for clip in answer["clips"]] == [made.clips[i] for i in np.argsort(distance)[:12]]
    assert answer["clips"][0]["value"] == pytest.approx(distance.min(), rel=1e-6)
    assert answer["basis"] == f"effects of all concepts at {STAGES[1]}"
    assert similar_clips(table, choice(), "absent", 0)["clips"] == []


def test_maps_have_lists_of_their_own(made):
    table = MapTable(made.folder)
    assert table.maps == ["gradcam@convs.2", "saliency@video"]
    by_map = [all_pages(table, ClipChoice(TARGETS[0], map=name, measure="peak_time")) for name in table.maps]
    assert sorted(by_map[0]) == sorted(made.clips) and by_map[0] != by_map[1]
    page = clip_page(table, ClipChoice(TARGETS[0], measure="score"), ClipFilter())
    assert [clip["value"] for clip in page["clips"]] == list(range(59, 59 - PAGE_CLIPS, -1))
    assert len(similar_clips(table, ClipChoice(TARGETS[0]), made.clips[0], 0)["clips"]) == 12
    with pytest.raises(ValueError, match="which answers are right"):
        clip_page(table, ClipChoice(TARGETS[0]), ClipFilter(answers="wrong"))


def test_the_page_opens_with_the_strongest_test_and_its_top_clip(made, workspace):
    target, stage, concept = STRONGEST
    effects = made.effects[TARGETS.index(target), STAGES.index(stage), CONCEPTS.index(concept)]
    assert workspace.describe()["start"] == {
        **{"run": "run", "task": "tcav", "target": target, "stage": stage, "vector": vector(concept), "sort": "down"},
        **{"clip": made.clips[int(effects.argmax())], "part": 0},
    }


def test_names_of_vectors_may_have_slashes():
    assert split_vector("a/b/dynamic/random") == ("a/b", "dynamic", "random")
    assert split_vector("odd") == ("odd", "", "")


def test_tables_are_read_again_when_they_change(tmp_path):
    made = make_run(tmp_path / "run", 4, concept_clips=1)
    run = open_served_run(made.folder, "run")
    before = run.table("tcav")
    assert run.table("tcav") is before
    text = (made.folder / "derivatives.csv").read_text()
    (made.folder / "derivatives.csv").write_text(text.replace("small_5_000000", "small_5_renamed"))
    assert "small_5_renamed" in run.table("tcav").names and "small_5_renamed" not in before.names


def test_folders_without_clips_are_refused_together(tmp_path, made):
    (tmp_path / "empty").mkdir()
    (tmp_path / "started").mkdir()
    (tmp_path / "started" / "run.json").write_text('{"request": {"task": "tcav"}}')
    with pytest.raises(ValueError, match="no run folder") as error:
        open_workspace([tmp_path / "empty", made.folder, tmp_path / "started"])
    assert "empty" in str(error.value) and "started has no results of single clips" in str(error.value)


def test_a_damaged_table_is_named(tmp_path):
    made = make_run(tmp_path / "run", 3, concept_clips=1)
    path = made.folder / "derivatives.csv"
    path.write_text(path.read_text() + "direction:left,convs.1\n")
    with pytest.raises(ValueError, match=r"derivatives\.csv is damaged: line 38"):
        open_workspace([made.folder])


def test_runs_of_one_name_are_told_apart(tmp_path):
    folders = [make_run(tmp_path / part / "run", 2, concept_clips=1).folder for part in ("a", "b")]
    assert list(open_workspace(folders).runs) == ["run", "run (2)"]
