"""The command of the task evaluate_methods: stored results, interrupted runs, and errors before any measurement."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.cli_runner import command_context
from vtcav_jax import models, worlds
from vtcav_jax.evaluation import network_parts
from vtcav_jax.evaluation.world_benchmark import result_store
from vtcav_jax.evaluation.world_benchmark.eval_set import EvalSet, questions_by_world
from vtcav_jax.evaluation.world_benchmark.score_rows import MethodResult
from vtcav_jax.runs.evaluation_rows import NotApplicable
from vtcav_jax.worlds.gates import Gates


def evaluate(run, **options):
    from vtcav_jax.cli.commands import evaluate_methods as task

    task.evaluate_methods(task.EvaluateMethodsArguments(run=run, **options), command_context())


def test_results_are_stored_and_a_damaged_file_is_measured_again(tmp_path, capsys):
    path = result_store.result_path(tmp_path, "../net", "small", "a/b")
    assert path.parent == tmp_path / result_store.RESULT_PARTS_FOLDER
    result = MethodResult("m", "video", "W1", 3, 0.5, {"WHERE": np.random.default_rng(0).random((3, 2, 7))})
    result_store.write_results(path, [result], [NotApplicable("x", "net", "no ReLUs")])
    (restored,), not_applicable = result_store.read_results(path)
    assert (restored.method, restored.forward_passes, restored.seconds) == ("m", 3, 0.5)
    assert not_applicable[0].reason == "no ReLUs"
    np.testing.assert_array_equal(restored.metrics["WHERE"], result.metrics["WHERE"])
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="is damaged"):
        result_store.read_results(path)
    result_store.drop_damaged(path, result_store.read_results)
    assert (
        not path.exists() and f"note: {path} is damaged" in (out := capsys.readouterr().out) and "measured again" in out
    )


def test_the_cache_key_changes_with_questions_and_code(monkeypatch):
    package = Path(network_parts.__file__).parents[1]
    assert all(list(package.glob(pattern)) for pattern in network_parts.EVALUATION_CODE)
    before = network_parts.cache_version(("W2",))
    assert network_parts.cache_version(("W2",)) == before != network_parts.cache_version(("W2", "W3"))
    monkeypatch.setattr(network_parts, "source_hash", lambda *patterns: "another")
    assert network_parts.cache_version(("W2",)) != before


def test_failed_gates_are_an_error_and_make_no_method_inapplicable(tmp_path, monkeypatch):
    def failed(*arguments):
        raise ValueError("failed gates")

    monkeypatch.setattr(network_parts, "build_eval_set", failed)
    with pytest.raises(ValueError, match="failed gates"):
        evaluate(tmp_path / "run", networks=("worlds_cnn",), methods=("gradcam",), questions=("W2",))
    assert not list((tmp_path / "run").glob("parts/*.npz"))


@pytest.mark.slow
def test_questions_are_measured_on_the_networks_with_their_heads(tmp_path, monkeypatch):
    from vtcav_jax.cli.commands import evaluate_methods as task

    jobs = []

    def network(job, report_progress):
        jobs.append((job.network_name, job.world, job.question_ids))
        return task.EvaluationResult([], [], "", [], [], [], [])

    monkeypatch.setattr(task, "evaluate_network", network)
    monkeypatch.setattr(task, "write_page", lambda folders: None)
    evaluate(tmp_path / "one", methods=("gradcam",), questions=("W7", "W8 both"), max_clips=4)
    answerable = {
        name: set(sum(questions_by_world(models.load(name)).values(), ())) & {"W7", "W8 both"}
        for name in models.shipped_networks()
    }
    assert {name: set(ids) for name, _, ids in jobs} == {name: ids for name, ids in answerable.items() if ids}
    assert {("shortcut", ("W7",)), ("events", ("W8 both",))} <= {(world, ids) for _, world, ids in jobs}
    with pytest.raises(ValueError, match="worlds_cnn does not answer W7; it answers W1, W2, W3, W4"):
        evaluate(tmp_path / "two", networks=("worlds_cnn",), methods=("gradcam",), questions=("W7",), max_clips=4)
    with pytest.raises(ValueError, match="unknown question W77"):
        evaluate(tmp_path / "three", methods=("gradcam",), questions=("W77",), max_clips=4)
    with pytest.raises(ValueError, match="holds a different run"):
        evaluate(tmp_path / "one", methods=("saliency",), questions=("W7",), max_clips=4)


@pytest.mark.slow
def test_an_interrupted_run_continues_with_the_same_result(tmp_path, monkeypatch):
    """No finished measurement is repeated."""
    options, groups = dict[str, Any](questions=("W7",), max_clips=12), []
    real = network_parts.measure_entries

    def counted(eval_set, entries):
        if len(groups) == stop:
            raise KeyboardInterrupt
        groups.append(tuple(dict.fromkeys(entry.method for entry in entries)))
        return real(eval_set, entries)

    clips = worlds.make_clips("shortcut", 12, 77)
    eval_set = EvalSet(models.load("worlds_shortcut_cnn"), "shortcut", ("W7",), clips, Passed(), 77)
    monkeypatch.setattr(network_parts, "build_eval_set", lambda *arguments: eval_set)  # without repeating the gates
    monkeypatch.setattr(network_parts, "measure_entries", counted)
    stop, methods = 1, ("gradcam", "saliency", "gradcam_framewise")
    with pytest.raises(KeyboardInterrupt):
        evaluate(tmp_path / "run", networks=("worlds_shortcut_cnn",), methods=methods, **options)
    assert groups == [("gradcam", "saliency")]
    stop = 99
    evaluate(tmp_path / "run", networks=("worlds_shortcut_cnn",), methods=methods, **options)
    baselines = ("random", "difference_to_mean", "frame_difference", "sobel", "oracle", "exact_box")
    assert groups[1:] == [("gradcam_framewise",), *((name,) for name in baselines)]
    evaluate(tmp_path / "whole", networks=("worlds_shortcut_cnn",), methods=methods, **options)
    tables = [without_seconds(tmp_path / name / "method_scores.csv") for name in ("run", "whole")]
    assert tables[0] == tables[1] and {row["method"] for row in tables[0]} >= set(methods)
    with pytest.raises(ValueError, match="holds a different run"):  # its rows depend on the methods measured with it
        evaluate(tmp_path / "run", networks=("worlds_shortcut_cnn",), methods=("xgradcam",), **options)


class Passed(Gates):
    """Gates of a network that is not checked."""

    def __init__(self):
        pass

    def table(self):
        return "passed"


def without_seconds(path):
    """Return the rows of a table without the column that differs between runs."""
    with path.open(newline="") as file:
        return [{name: value for name, value in row.items() if name != "seconds"} for row in csv.DictReader(file)]
