"""The command and the Python that make what a view shows."""

import shlex
from dataclasses import dataclass
from pathlib import Path

from vtcav_jax.serve.films import ClipSampling
from vtcav_jax.serve.run_network import NetworkReference


@dataclass(frozen=True)
class ViewedClip:
    """A clip of a view, and what the view shows of it; empty texts are absent."""

    network: NetworkReference
    source: str
    clip: str
    part: int
    sampling: ClipSampling
    target: str
    method: str = ""
    stage: str = ""  # of the map; empty for the method's default
    run: Path | None = None  # with the concept vectors
    vector: str = ""  # CONCEPT/CLIP_TYPE/NEGATIVES
    vector_stage: str = ""
    step: float = 0.0
    step_length: float = 0.0


def view_python(view: ViewedClip) -> str:
    """Return a program that reads the clip and computes what the view shows."""
    shows_steering = bool(view.run and view.vector and view.step)
    imports = ["import vtcav_jax as vtcav", "from vtcav_jax.data import SamplingConfig"]
    if view.network.labels or view.network.label_tree or view.network.random_weights:
        imports.append("from vtcav_jax import models")
    if view.network.labels or view.network.label_tree:
        imports.insert(0, "from dataclasses import replace")
    lines = [*_network_lines(view.network)]
    settings = [f"clips_per_video={view.sampling.clips_per_video}"] if view.sampling.clips_per_video > 1 else []
    if view.sampling.interval_seconds:
        settings.append(f"interval_seconds={view.sampling.interval_seconds!r}")
    if view.sampling.start_frame is not None:
        settings.append(f"start={view.sampling.start_frame}")
    row = 0 if view.sampling.slides else view.part
    lines += [
        f"source = vtcav.open_source({view.source!r})",
        f"index = [item.name for item in source.items].index({view.clip!r})",
        f"sampling = SamplingConfig({', '.join([*settings, 'normalise=False'])})",
        f"clip = source.read(index, network.clip_spec, sampling).video[{row}:{row + 1}]",
    ]
    if view.method:
        stage = f", stage={view.stage!r}" if view.stage and view.stage != "video" else ""
        if view.method == "deep_taylor":
            imports.append("from vtcav_jax.attribution import pixel_bounds")
            stage += ", bounds=pixel_bounds(network.clip_spec)"
        lines += [
            f"map = vtcav.attribute(network, clip, {view.target!r}, {view.method!r}{stage})",
            'vtcav.save_animation("map.webp", clip, map)',
        ]
    if shows_steering:
        imports = [
            *("import jax", "import jax.numpy as jnp", "import numpy as np"),
            *imports,
            "from vtcav_jax.tcav.features.pooling import broadcast_vector",
            "from vtcav_jax.tcav.vector_file import load_vectors_for",
        ]
        name = f"{view.vector_stage}|{view.vector}"
        lines += [
            f"vectors = load_vectors_for(network.model, Path({str(view.run)!r}))",
            "video = network.clip_spec.normalise(jnp.asarray(clip))",
            f"stage = {view.vector_stage!r}",
            "shape = vtcav.tap.activations(network.model, video, stage)[1][stage].shape",
            f"direction = broadcast_vector(vectors.arrays[{name!r}], shape[1:], vectors.pool)[None]",
            f"step = np.float32({view.step!r} * {view.step_length!r})  # steps times the length of a step",
            "logits = vtcav.tap.steered_logits(network.model, video, stage, direction, step)",
            f"head = next(part for part in network.head_slices.values() if {_in_head(view.target)})",
            "print(dict(zip(network.labels[head], jax.nn.softmax(logits[0, head]).tolist())))",
        ]
        imports.insert(0, "from pathlib import Path")
    elif not view.method:
        lines.append("print(clip.shape)")
    return "\n".join([*imports, "", *lines, ""])


def _in_head(target: str) -> str:
    return f"part.start <= network.class_index({target!r}) < part.stop"


def _network_lines(network: NetworkReference) -> list[str]:
    if network.random_weights:
        lines = [f"network = models.random_network({network.model!r}, seed={network.seed})"]
    else:
        lines = [f"network = vtcav.load({network.model!r})"]
    if network.labels:
        lines.append(f"network = replace(network, heads=models.relabel(network.heads, {network.labels!r}))")
    if network.label_tree:
        lines += [
            f"groups = models.read_label_tree({network.label_tree!r}, network)",
            "network = replace(network, groups=groups)",
        ]
    return lines


def view_command(view: ViewedClip) -> str:
    """Return the command that makes the view's map of all clips of the source, or scores them by the vectors."""
    words = [f"--model={view.network.model}"]
    words += [f"--labels={view.network.labels}"] if view.network.labels else []
    words += [f"--videos={view.source}", f"--targets={view.target}"]
    if view.method:
        words += [f"--label_tree={view.network.label_tree}"] if view.network.label_tree else []
        words += ["--random_weights"] if view.network.random_weights else []
        stage = f"@{view.stage}" if view.stage and view.stage != "video" else ""
        sampling = view.sampling
        words += [f"--clips_per_video={sampling.clips_per_video}"] if sampling.clips_per_video > 1 else []
        words += [f"--interval_seconds={sampling.interval_seconds}"] if sampling.interval_seconds else []
        words += ["--slide_over_video"] if sampling.slides else []
        task, words = "attribute", [*words, f"--methods={view.method}{stage}", "--run=NAME"]
    elif view.run:
        task, words = "score_concepts", [*words, f"--run={view.run}", "--out=DIR"]
    else:
        task, words = "predict", [word for word in words if not word.startswith("--targets")]
    return shlex.join(["vtcav", task, *words])


def run_command_line(flags_path: Path) -> str:
    """Return the command that makes the run itself."""
    return shlex.join(["vtcav", f"--flagfile={flags_path}"])
