"""Everything that a server shows: runs, concept folders with their reviews, and what they share in memory."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vtcav_jax.concepts.concept_table import CONCEPTS_CSV
from vtcav_jax.names import unknown_name_message
from vtcav_jax.report.random_weights_notice import RANDOM_WEIGHTS_NOTICE
from vtcav_jax.runs.directory import RUN_RECORD_FILE
from vtcav_jax.serve.byte_cache import ByteCache
from vtcav_jax.serve.clip_lists import ClipFilter, clip_page
from vtcav_jax.serve.clip_tables import MEASURE_LABELS, ClipChoice
from vtcav_jax.serve.concept_cards import ConceptFolder
from vtcav_jax.serve.films import FilmLibrary
from vtcav_jax.serve.network_session import NetworkSession, requestable_methods
from vtcav_jax.serve.review_store import ReviewStore
from vtcav_jax.serve.run_network import NetworkReference, NetworkShelf
from vtcav_jax.serve.served_run import (
    ServedRun,
    distinct_names,
    is_concept_folder,
    open_served_run,
    tested_vector_name,
)
from vtcav_jax.tap import stages_of
from vtcav_jax.tcav.vector_file import VECTORS_FILE, VectorBundle, list_vectors, load_vectors

MAX_TESTS = 60  # of a class on the page
MAX_CHOICES = 2000  # classes, stages or concepts of a menu
MAX_VECTOR_BYTES = 128 * 2**20


@dataclass(frozen=True)
class Workspace:
    """Runs and concept folders by name, with the caches and the network session that their pages share."""

    runs: dict[str, ServedRun]
    reviews: dict[str, ReviewStore]
    films: FilmLibrary
    shelf: NetworkShelf
    session: NetworkSession
    folders: tuple[Path, ...]  # as they were named
    bundles: ByteCache[VectorBundle]

    def run(self, name: str) -> ServedRun:
        if name not in self.runs:
            raise ValueError(unknown_name_message("run", [name], self.runs))
        return self.runs[name]

    def review(self, name: str) -> ReviewStore:
        if name not in self.reviews:
            raise ValueError(unknown_name_message("concept folder", [name], self.reviews))
        return self.reviews[name]

    def bundle(self, run: ServedRun, name: str) -> VectorBundle:
        """Return one concept vector of a run, STAGE|CONCEPT/CLIP_TYPE/NEGATIVES."""
        if name not in list_vectors(run.folder):
            stage, _, vector = name.partition("|")
            raise ValueError(f"the run has no vector {vector} at {stage}")
        changed = (run.folder / VECTORS_FILE).stat().st_mtime_ns
        return self.bundles.get_or_compute((run.name, name, changed), lambda: load_vectors(run.folder, [name]))

    def describe(self) -> dict[str, Any]:
        """Return the menus of all runs, and the view that the page opens with."""
        return {
            "runs": [self._describe_run(run) for run in self.runs.values()],
            "concepts": [
                {"name": name, "path": str(store.concepts.folder.resolve())} for name, store in self.reviews.items()
            ],
            "start": self.first_view(),
            "command": self.command,
        }

    @property
    def command(self) -> str:
        """Return the command that shows these folders; a path without a slash would be a folder in runs/."""
        paths = (path if "/" in (path := folder.as_posix()) else f"./{path}" for folder in self.folders)
        return shlex.join(["vtcav", "serve", f"--run={','.join(paths)}"])

    def _describe_run(self, run: ServedRun) -> dict[str, Any]:
        tasks = {task: self._describe_task(run, task) for task in run.tasks}
        folder = next((n for n, r in self.reviews.items() if r.concepts.folder == run.concept_folder), None)
        return {
            "name": run.name,
            "tasks": tasks,
            "concepts": folder,
            "steerable": list_vectors(run.folder)[:MAX_CHOICES] if "tcav" in run.tasks else [],
        }

    def _describe_task(self, run: ServedRun, task: str) -> dict[str, Any]:
        table = run.table(task)
        facts: dict[str, Any] = {
            "model": run.network(task).model,
            "source": run.source(task),
            "clips": len(table.names),
            "targets": table.targets[:MAX_CHOICES],
            "notice": RANDOM_WEIGHTS_NOTICE if run.network(task).random_weights else "",
            "knowsAnswers": table.wrong_clips("") is not None,
            "measures": [{"name": name, "label": MEASURE_LABELS[name]} for name in table.measures],
        }
        if task == "tcav":
            facts["stages"] = list(dict.fromkeys(row.stage for row in run.score_rows))[:MAX_CHOICES]
            facts["vectors"] = list(dict.fromkeys(tested_vector_name(row) for row in run.score_rows))[:MAX_CHOICES]
        if task == "attribute" and run.maps:
            facts["maps"] = run.maps.maps
        return facts

    def first_view(self) -> dict[str, Any]:
        """Return the strongest test of the first run with its top clip; without tests the clip with the top score."""
        for run in self.runs.values():
            for task in run.tasks:
                if not run.table(task).targets:
                    continue
                view: dict[str, Any] = {"run": run.name, "task": task}
                if task == "tcav" and (row := run.strongest_test()):
                    sorting = "down" if row.derivative >= 0 else "up"
                    view |= {
                        "target": row.target,
                        "stage": row.stage,
                        "vector": tested_vector_name(row),
                        "sort": sorting,
                    }
                else:
                    view |= {"target": run.table(task).targets[0], "sort": "down"}
                choice = ClipChoice(view["target"], view.get("stage", ""), view.get("vector", ""))
                clips = clip_page(run.table(task), choice, ClipFilter(view["sort"]))["clips"]
                return view | ({"clip": clips[0]["clip"], "part": clips[0]["part"]} if clips else {})
        return {"view": "concepts", "folder": next(iter(self.reviews), "")}

    def methods(self, reference: NetworkReference) -> dict[str, Any]:
        """Return the methods and stages of maps that can be requested; loads the network."""
        network = self.shelf.network(reference)
        return {
            "methods": requestable_methods(network),
            "stages": list(stages_of(network.model)),
            "targets": [*network.heads, *network.labels][:MAX_CHOICES],
        }

    def tests(self, run: str, target: str) -> list[dict[str, Any]]:
        return self.run(run).tests(target)[:MAX_TESTS]


def open_workspace(folders: Sequence[Path]) -> Workspace:
    """Open run folders and concept folders; one error lists all that are neither, or have nothing to show."""
    problems, run_folders, concept_folders = [], [], []
    for folder in folders:
        if is_concept_folder(folder):
            concept_folders.append(folder)
        elif (folder / RUN_RECORD_FILE).is_file():
            run_folders.append(folder)
        else:
            problems.append(
                f"{folder} is no run folder and no folder of concepts; expected one with {RUN_RECORD_FILE} or"
                f" {CONCEPTS_CSV}"
            )
    runs = []
    for folder, name in zip(run_folders, distinct_names(run_folders)):
        try:
            run = open_served_run(folder, name)
            for task in run.tasks:  # reads the tables once, so that errors come now
                run.table(task)
            if not run.tasks:
                raise ValueError(
                    f"{folder} has no results of single clips; expected a finished run of tcav, attribute or motion"
                )
            runs.append(run)
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise ValueError("; ".join(problems))
    for run in runs:
        if (folder := run.concept_folder) and folder.resolve() not in [known.resolve() for known in concept_folders]:
            concept_folders.append(folder)
    shelf = NetworkShelf()
    return Workspace(
        {run.name: run for run in runs},
        {
            name: ReviewStore(ConceptFolder(name, folder))
            for folder, name in zip(concept_folders, distinct_names(concept_folders))
        },
        FilmLibrary(),
        shelf,
        NetworkSession(shelf),
        tuple(folders),
        ByteCache(MAX_VECTOR_BYTES, lambda bundle: sum(array.nbytes for array in bundle.arrays.values())),
    )
