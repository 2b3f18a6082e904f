"""What the page shows of one clip: film, map, curves, answer, steering, and how to make the same elsewhere."""

from collections.abc import Sequence
from concurrent.futures import TimeoutError as NotDoneError
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from vtcav_jax.attribution.result import VIDEO
from vtcav_jax.attribution.videos.stored_results import read_about
from vtcav_jax.data.source import is_unchanged, item_content
from vtcav_jax.runs.tcav_rows import SCORES_CSV
from vtcav_jax.serve.columns import explain_damage
from vtcav_jax.serve.films import (
    MAX_FILM_FRAMES,
    MAX_FILM_SIDE,
    THUMBNAIL_SIDE,
    ClipSampling,
    FilmClip,
    FilmPicture,
)
from vtcav_jax.serve.maps import clip_maps
from vtcav_jax.serve.maps.clip_maps import ClipMap
from vtcav_jax.serve.maps.requested_maps import MapContent
from vtcav_jax.serve.network_session import MapRequest, Steering
from vtcav_jax.serve.reproduction import ViewedClip, run_command_line, view_command, view_python
from vtcav_jax.serve.run_network import NetworkReference
from vtcav_jax.serve.served_run import ServedRun
from vtcav_jax.serve.workspace import Workspace

MAPS_FOLDER = "maps"
MAX_MAPS = 100  # in the menu of a clip


@dataclass(frozen=True)
class ClipView:
    """One clip of a task of a run."""

    workspace: Workspace
    run: ServedRun
    task: str
    clip: str
    part: int

    def __post_init__(self):
        if self.clip not in self.run.table(self.task).names:
            raise ValueError(f"{self.run.name} has no clip {self.clip}; choose one of its list")

    @property
    def network(self) -> NetworkReference:
        return self.run.network(self.task)

    def sampling(self) -> ClipSampling:
        """Return how the clip was sampled; the first frame of one that slides is in the file of its maps."""
        sampling = self.run.sampling(self.task)
        if not sampling.slides:
            return sampling
        path = self._map_path(self.run)
        start = clip_maps.first_frame(path, self.part) if path and self.task == "attribute" else None
        if start is None and self.part:
            raise ValueError(f"{self.clip}: it is not stored where clip {self.part + 1} of the video starts")
        return replace(sampling, start_frame=start or 0)

    def read(self) -> FilmClip:
        clip_spec = self.workspace.shelf.clip_spec(self.network)
        return self.workspace.films.clip(self.run.source(self.task), self.clip, self.part, clip_spec, self.sampling())

    def film(self) -> FilmPicture:
        return self._picture(MAX_FILM_SIDE, MAX_FILM_FRAMES)

    def thumbnail(self) -> FilmPicture:
        return self._picture(THUMBNAIL_SIDE, 1)

    def _picture(self, side: int, frames: int) -> FilmPicture:
        key = (self.run.name, self.task, self.clip, self.part)
        return self.workspace.films.picture(key, self.read, side, frames)

    def _map_runs(self) -> list[ServedRun]:
        """Return the runs with stored maps of the same network and the same videos; the clip's own run comes first."""
        runs = [self.run, *(run for run in self.workspace.runs.values() if run is not self.run)]
        return [
            run
            for run in runs
            if run.maps
            and run.source("attribute") == self.run.source(self.task)
            and run.network("attribute").model == self.network.model
            and run.sampling("attribute") == self.run.sampling(self.task)
        ]

    def _map_path(self, run: ServedRun) -> Path | None:
        name = run.maps.file_of(self.clip) if run.maps else None
        if name is None or Path(name).name != name:
            return None
        path = run.folder / MAPS_FOLDER / name
        return path if path.is_file() else None

    def _map_key(self, target: str, map_name: str) -> tuple:
        return (self.network, self.run.source(self.task), self.clip, self.part, self.sampling(), target, map_name)

    def find_map(self, target: str, map_name: str) -> ClipMap | None:
        """Return a map, METHOD or METHOD@STAGE, that is stored or was computed on request; None if there is none."""
        workspace, key = self.workspace, self._map_key(target, map_name)
        if (clip_map := workspace.session.maps.get(key)) is not None:
            return clip_map
        method, _, stage = map_name.partition("@")
        for run in self._map_runs():
            table = run.maps
            if table and map_name in table.maps and target in table.targets and (path := self._map_path(run)):
                with explain_damage(path):
                    self._require_unchanged(path)
                    clip_map = clip_maps.load_clip_map(path, target, method, stage, self.part)
                if clip_map is not None:
                    workspace.session.maps.put(key, clip_map)
                    return clip_map
        clip_map = self._find_requested(target, method, stage)
        if clip_map is not None:
            workspace.session.maps.put(key, clip_map)
        return clip_map

    def map_content(self, network: dict[str, str], content: str | None = None) -> MapContent:
        """Return what the maps of the clip depend on; `content` is that of its video, by default as it is now."""
        source, index = self.workspace.films.find_item(self.run.source(self.task), self.clip)
        current = item_content(source, index)
        stored = "" if current is None else current if content is None else content
        return MapContent(network, source.identity, self.clip, self.part, self.sampling(), stored)

    def _find_requested(self, target: str, method: str, stage: str) -> ClipMap | None:
        """Return a map that was requested before, without the network, whose hashes are in the record of the run."""
        network, stage = self.run.network_identity(self.task), "" if stage == VIDEO else stage
        store = self.run.requested_maps
        entries = store.entries(self.clip, self.part) if network else []
        if not any(entry.answers(target, method, stage) for entry in entries):
            return None  # before the video is read for its hash
        return store.load(self.map_content(network), target, method, stage)

    def _require_unchanged(self, path: Path) -> None:
        """Raise ValueError if the video is not the one that the maps in a file were computed from."""
        source, index = self.workspace.films.find_item(self.run.source(self.task), self.clip)
        if not is_unchanged(source, index, str(read_about(path)["content"])):
            raise ValueError(f"{self.clip} has changed since its maps were computed; repeat the command of the run")

    def stored_maps(self) -> list[dict[str, str]]:
        """Return the maps that runs have for the clip, by target and name."""
        return [
            {"target": target, "map": name}
            for run in self._map_runs()
            if run.maps and self._map_path(run)
            for target in run.maps.targets
            for name in run.maps.maps
        ][:MAX_MAPS]

    def requested_maps(self) -> list[dict[str, str]]:
        """Return the maps that pages asked for, by target and name, if they are still those of the clip."""
        network, entries = self.run.network_identity(self.task), self.run.requested_maps.entries(self.clip, self.part)
        if not network or not entries:
            return []
        digest = self.map_content(network).digest
        entries = [entry for entry in entries if entry.digest == digest]
        return [{"target": entry.target, "map": f"{entry.method}@{entry.stage}"} for entry in entries]

    def menu_of_maps(self) -> list[dict[str, str]]:
        """Return all maps that exist for the clip, each once."""
        maps = self.stored_maps() + self.requested_maps()
        return list({(entry["target"], entry["map"]): entry for entry in maps}.values())[:MAX_MAPS]

    def overlay(self, target: str, map_name: str, *, motion_only: bool) -> FilmPicture:
        """Return the picture of a map that exists."""
        clip_map = self._require_map(target, map_name)
        n_frames = self.film().n_frames
        return clip_maps.overlay_picture(clip_map, n_frames, motion_only=motion_only)

    def _require_map(self, target: str, map_name: str) -> ClipMap:
        if (clip_map := self.find_map(target, map_name)) is None:
            raise LookupError(f"{map_name} of {target} is not computed for this clip")
        return clip_map

    def facts(self, target: str, stage: str, vector: str) -> dict[str, Any]:
        """Return the answer to the clip, the effects of all concepts on it, its maps, and its film's size."""
        effects = self.run.effects if self.task == "tcav" else None
        prediction = effects.prediction(target, self.clip) if effects else None
        return {
            "clip": self.clip,
            "part": self.part,
            "answer": prediction[0] if prediction else None,
            "probability": prediction[1] if prediction else None,
            "effects": effects.effects_of_clip(target, stage, self.clip)[:MAX_MAPS] if effects else [],
            "maps": self.menu_of_maps(),
            "stepLength": self.run.step_length(stage, vector) if effects and vector else None,
        }

    def curves(self, target: str, stage: str, vector: str, map_target: str, map_name: str) -> dict[str, Any]:
        """Return the curves below the film: the concept's effect over time, and the sums of the map."""
        times = np.asarray(self.film().times)
        curves: list[dict[str, Any]] = []
        if self.task == "tcav" and vector:
            curve = self.run.derivative_curve(target, stage, vector, self.clip)
            if curve is not None:
                at = np.interp(clip_maps.step_positions(len(curve), len(times)), np.arange(len(times)), times)
                label = f"effect of {vector} on {target} at {stage}"
                curves.append({"label": label, "kind": "effect", "times": at.tolist(), "values": curve.tolist()})
        clip_map = self.find_map(map_target, map_name) if map_name else None
        if clip_map is not None:
            curves += clip_maps.map_curves(clip_map, times)
        about = None
        if clip_map is not None:
            about = {
                "target": clip_map.target,
                "map": clip_map.name,
                "answer": clip_map.answer,
                "score": clip_map.score,
                "signed": clip_map.signed,
                "grid": list(clip_map.map.shape),
                "hasMotion": len(clip_map.map) > 1,
            }
        return {"times": times.tolist(), "curves": curves, "map": about, "missing": bool(map_name) and clip_map is None}

    def steer(self, target: str, stage: str, vector: str, steps: Sequence[float]) -> dict[str, Any]:
        workspace = self.workspace
        if self.task != "tcav":
            raise ValueError(f"{self.task} has no concept vectors; choose a run of tcav")
        steering = Steering(stage, vector, tuple(steps), self.run.step_length(stage, vector))
        bundle = workspace.bundle(self.run, f"{stage}|{vector}")
        return workspace.session.steer(self.network, bundle, self.read(), target, steering)

    def request_map(self, target: str, method: str, stage: str) -> str:
        """Queue a map; return the name of its job."""
        name = f"{method}@{stage}" if stage else method
        key, film = self._map_key(target, name), self.read()
        request = MapRequest(self.network, film, target, method, stage, self.run.requested_maps, self.map_content)
        return self.workspace.session.request_map(key, request)

    def reproduction(
        self, target: str, stage: str, vector: str, map_target: str, map_name: str, step: float
    ) -> dict[str, str]:
        """Return command and Python of the view, and the commands of the run and of this page."""
        method, _, map_stage = map_name.partition("@")
        has_vectors = self.task == "tcav" and bool(vector)
        length = self.run.step_length(stage, vector) if has_vectors else 0.0
        view = ViewedClip(
            self.network,
            self.run.source(self.task),
            self.clip,
            self.part,
            self.sampling(),
            map_target if method else target,
            method,
            map_stage,
            self.run.folder if has_vectors else None,
            vector,
            stage,
            step if np.isfinite(length) else 0.0,
            length,
        )
        record = self.run.record(self.task)
        return {
            "python": view_python(view),
            "command": view_command(view),
            "run": run_command_line(record.flags_path) if record and record.flags_path.is_file() else "",
            "page": self.workspace.command,
            "table": str(self.run.folder / SCORES_CSV) if self.task == "tcav" else "",
        }


def job_state(workspace: Workspace, name: str, timeout: float) -> dict[str, Any]:
    """Return whether a requested map is done, after waiting for it up to `timeout` seconds."""
    job = workspace.session.job(name)
    if job is None:
        raise LookupError(f"there is no request {name} any more; ask for the map again")
    try:
        name = job.future.result(timeout)
    except NotDoneError:
        return {"done": False}
    except ValueError as error:
        return {"done": True, "error": str(error)}
    return {"done": True, "map": name}
