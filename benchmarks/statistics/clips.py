"""Synthetic clips encoded once by a shipped network, from which concept sets, random sets and target clips are drawn.

The clips and their frozen, shuffled and reversed controls are encoded at each stage (layer), pooled over space as in
`ExperimentConfig`. A *video* of 5 clips consists of clips that share the scene and the shape and direction of the
distractor, which no class of directions and shapes depends on.
"""

import hashlib
import itertools
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int

import vtcav_jax
from vtcav_jax import atomic, models
from vtcav_jax.concepts import crops
from vtcav_jax.evaluation.tcav_benchmark.run import FactorConcept
from vtcav_jax.evaluation.tcav_benchmark.table import CAUSE_ROLE, DISTRACTOR_ROLE, OTHER_HEAD_ROLE
from vtcav_jax.tcav.features.encode import EncodeConfig, encode
from vtcav_jax.tcav.features.feature_store import features_from_array
from vtcav_jax.tcav.features.gram import Gram, compute_gram
from vtcav_jax.tcav.features.microbatches import in_memory
from vtcav_jax.worlds import make_clips
from vtcav_jax.worlds.glyphs import GLYPH_QUESTIONS

CACHE = Path(__file__).parents[2] / "runs" / "cache" / "statistics"
STAGES = {"worlds_swin": ("layers.0", "layers.1"), "worlds_cnn": ("convs.0", "convs.2")}
CONTROLS = ("frozen", "shuffled", "reversed")
WORLD, EXAMPLE_SEED, TARGET_SEED = "small", 770_001, 770_002
CLASSES = tuple((head, answer) for head in GLYPH_QUESTIONS for answer in range(4))
DISTRACTOR_FACTORS = ("dis_shape", "dis_direction", "dis_flash")
SHARED_FACTORS = ("scene", "dis_shape", "dis_direction")  # of the clips of one video
CLIPS_PER_VIDEO, CONCEPT_CLIPS, RANDOM_CLIPS, TARGET_CLIPS = 5, 25, 125, 30
ROLES = {CAUSE_ROLE: "own factor", OTHER_HEAD_ROLE: "other head's factor", DISTRACTOR_ROLE: "distractor's factor"}


@dataclass(frozen=True)
class EncodedClips:
    """Activations of clips and controls, and gradients of the logit of each head's correct class at target clips."""

    network: str
    factors: dict[str, Int[np.ndarray, " n"]]
    target_factors: dict[str, Int[np.ndarray, " k"]]
    activations: dict[str, Float[np.ndarray, "n d"]]  # key: STAGE/dynamic, STAGE/frozen, ...
    gradients: dict[str, Float[np.ndarray, "heads k d"]]  # by stage

    @property
    def count(self) -> int:
        return len(self.factors["scene"])

    @cached_property
    def video_groups(self) -> Int[np.ndarray, " n"]:
        """Index of the combination of the factors that clips of one video share."""
        return np.ravel_multi_index([self.factors[name] for name in SHARED_FACTORS], (4,) * len(SHARED_FACTORS))

    def has_value(self, factor: str, value: int) -> Bool[np.ndarray, " n"]:
        return self.factors[factor] == value

    def without(self, rows: Int[np.ndarray, " _"]) -> Bool[np.ndarray, " n"]:
        return ~np.isin(np.arange(self.count), rows)

    def draw_clips(
        self, rng: np.random.Generator, count: int, allowed: Bool[np.ndarray, " n"] | None = None
    ) -> Int[np.ndarray, " count"]:
        """Draw different clips among the allowed ones (default: all)."""
        rows = np.arange(self.count) if allowed is None else np.flatnonzero(allowed)
        return rng.choice(rows, count, replace=False)

    def draw_videos(
        self, rng: np.random.Generator, videos: int, allowed: Bool[np.ndarray, " n"] | None = None
    ) -> Int[np.ndarray, " count"]:
        """Draw clips ordered by video; the shared factors of each video are drawn independently of other videos."""
        free = np.ones(self.count, bool) if allowed is None else allowed.copy()
        chosen: list[int] = []
        while len(chosen) < videos * CLIPS_PER_VIDEO:
            rows = np.flatnonzero(free & (self.video_groups == rng.integers(self.video_groups.max() + 1)))
            if len(rows) >= CLIPS_PER_VIDEO:
                rows = rng.choice(rows, CLIPS_PER_VIDEO, replace=False)
                free[rows] = False
                chosen += rows.tolist()
        return np.array(chosen)

    def draw_targets(self, rng: np.random.Generator, count: int = TARGET_CLIPS) -> dict[tuple[str, int], np.ndarray]:
        """Draw target clips of each class, with replacement: the encoded ones are the population."""
        return {
            (head, answer): rng.choice(np.flatnonzero(self.target_factors[head] == answer), count)
            for head, answer in CLASSES
        }

    def class_gradients(self, stage: str, head: str, rows: np.ndarray) -> Float[np.ndarray, "n d"]:
        return self.gradients[stage][list(GLYPH_QUESTIONS).index(head), rows]

    def grams(
        self,
        stage: str,
        examples: Float[np.ndarray, "m d"],
        targets: dict[tuple[str, int], np.ndarray],
    ) -> list[Gram]:
        """Return the products of the examples with the gradients of each class of `targets`."""
        gradients = [self.class_gradients(stage, head, rows) for (head, _), rows in targets.items()]
        return class_grams(examples, gradients)


def class_grams(examples: Float[np.ndarray, "m d"], gradients: list[Float[np.ndarray, "_ d"]]) -> list[Gram]:
    """Return one Gram per class; all have the same kernel."""
    gram = compute_gram(
        features_from_array(examples), features_from_array(np.concatenate(gradients).astype(examples.dtype))
    )
    ends = np.cumsum([0, *map(len, gradients)])
    return [
        Gram(gram.kernel, gram.cross[:, start:stop], gram.gradients[:, start:stop, start:stop])
        for start, stop in itertools.pairwise(ends)
    ]


def class_roles(factor: str, value: int) -> list[str | None]:
    """Return the role of a concept for each of `CLASSES`; None for other classes of its own head."""
    concept = FactorConcept(factor, value)
    return [None if (role := concept.role(head, answer)) is None else ROLES[role] for head, answer in CLASSES]


def load_encoded(network: str, n_clips: int, n_targets: int) -> EncodedClips:
    """Encode the clips, or read them if the same code has encoded them before."""
    key = hashlib.sha256(f"{network} {n_clips} {n_targets}".encode())
    package = Path(vtcav_jax.__file__).parent
    sources = [package / name for name in ("tap.py", "concepts/crops.py", "tcav/features/encode.py")]
    sources += [package / "tcav" / "features" / "pooling.py", Path(__file__)]
    for folder in ("models", "worlds"):
        sources += sorted((package / folder).rglob("*.py"))
    for path in (*sources, package / "models" / "shipped" / f"{network}.safetensors"):
        key.update(path.read_bytes())
    path = CACHE / f"{network}_{key.hexdigest()[:16]}.npz"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic.replacing(path) as temporary, temporary.open("wb") as file:
            np.savez(file, allow_pickle=False, **_encode(network, n_clips, n_targets))
    parts: dict[str, dict[str, np.ndarray]] = {"factors": {}, "target_factors": {}, "activations": {}, "gradients": {}}
    with np.load(path) as arrays:
        for name, values in arrays.items():
            part, _, rest = name.partition("|")
            parts[part][rest] = values
    return EncodedClips(network, **parts)


def _encode(name: str, n_clips: int, n_targets: int) -> dict[str, np.ndarray]:
    network = models.load(name)
    clips, targets = make_clips(WORLD, n_clips, EXAMPLE_SEED), make_clips(WORLD, n_targets, TARGET_SEED)
    edits = {
        "dynamic": lambda frames, i: frames,
        "frozen": lambda frames, i: crops.freeze_middle_frame(frames),
        "shuffled": crops.shuffle_frames,
        "reversed": lambda frames, i: crops.reverse_frames(frames),
    }
    classes = np.stack([network.head_slices[head].start + targets.labels[head] for head in GLYPH_QUESTIONS], 1)
    target_frames = network.clip_spec.normalise(targets.frames)
    arrays = {f"factors|{factor}": values for factor, values in clips.factors.items()}
    arrays |= {f"target_factors|{factor}": values for factor, values in targets.factors.items()}
    stages = STAGES[name]
    for edit, change in edits.items():
        frames = np.stack([change(clip, i) for i, clip in enumerate(clips.frames)])
        out = encode(
            network.model,
            in_memory(network.clip_spec.normalise(frames)),
            in_memory(target_frames if edit == "dynamic" else target_frames[:1]),
            classes if edit == "dynamic" else classes[:1],
            stages,
            EncodeConfig("space", batch_size=50),
        )
        for stage in stages:
            arrays[f"activations|{stage}/{edit}"] = np.concatenate(list(out.examples[stage].blocks()), 1)
            if edit == "dynamic":
                gradients = np.concatenate(list(out.gradients[stage].blocks()), 1)
                arrays[f"gradients|{stage}"] = gradients.reshape(len(GLYPH_QUESTIONS), n_targets, -1)
    return arrays
