"""`BatchEncoder`: logits, activations and derivatives of batches of clips, for `Dataset.map_batches` of Ray.

It does not need Ray: an instance is a function from a dictionary of arrays to another.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array

from vtcav_jax import tap
from vtcav_jax.adapters.factory import load
from vtcav_jax.attribution.inputs import resolve_clips
from vtcav_jax.fingerprint import fingerprint
from vtcav_jax.names import count_noun, unknown_name_message
from vtcav_jax.settings import MAX_BATCH_SIZE
from vtcav_jax.tcav.features.encode import SCORE_FNS, accumulation_dtype
from vtcav_jax.tcav.features.pooling import POOLS, broadcast_vector, pool_activations
from vtcav_jax.tcav.vector_file import VectorBundle, load_vectors

LOGITS_COLUMN = "logits"
ACTIVATIONS_COLUMN = "activations/"  # and the stage
DERIVATIVES_COLUMN = "derivatives/"  # and the name of the vector, STAGE|CONCEPT/TYPE/NEGATIVES


class BatchEncoder:
    """Callable that encodes batches of clips; Ray makes one instance per actor, which loads and compiles once.

    ```python
    encoded = clips.map_batches(
        BatchEncoder,
        fn_constructor_args=("worlds_cnn", ["convs.2"]),
        batch_size=32,
        concurrency=2,
    )
    ```

    Args:
        model: a network as `load` takes it. It is loaded by each actor, so that only its name is sent.
        stages: stages (layers) whose activations are returned, averaged over the axes that `pool` names.
        vectors: folder of a `tcav` run with `--export_vectors`; adds the derivatives of the class scores of `targets`
            along its concept vectors.
        targets: class names, such as `direction:left`, of derivatives.
        score_fn: the class score that is differentiated.
        clips_column: column of the clips `(b, t, h, w, 3)`, uint8 or normalised; the result does not contain it.
        batch_size: clips that the network encodes together. Batches are divided into parts of this size and the last
            part is filled up, so that there is one compilation.
    """

    def __init__(
        self,
        model: str | Path,
        stages: Sequence[str] = (),
        *,
        pool: str = "all",
        vectors: str | Path | None = None,
        targets: Sequence[str] = (),
        score_fn: str = "logit",
        clips_column: str = "clip",
        batch_size: int = 8,
    ):
        self.network = load(model)
        self.stages = (stages,) if isinstance(stages, str) else tuple(dict.fromkeys(stages))
        self.pool, self.score_fn, self.clips_column, self.batch_size = pool, score_fn, clips_column, batch_size
        bundle = None if vectors is None else load_vectors(Path(vectors))
        self._check(bundle, targets)
        self.classes = jnp.asarray([self.network.class_index(name) for name in targets], jnp.int32)
        self.vectors = {} if bundle is None else self._stage_vectors(bundle)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the other columns of a batch with logits, activations and derivatives, one row per clip."""
        clips = self._clips(batch)
        if lengths := {name: len(column) for name, column in batch.items() if len(column) != len(clips)}:
            columns = ", ".join(f"{name} with {length}" for name, length in lengths.items())
            raise ValueError(
                f"expected columns of {count_noun(len(clips), 'row')}, as {self.clips_column} has, got {columns}; pass"
                " one row per clip in every column"
            )
        parts = [
            self._encode(clips[start : start + self.batch_size]) for start in range(0, len(clips), self.batch_size)
        ]
        if not parts:
            filler = np.zeros((1, *self.network.clip_spec.shape), np.uint8)
            parts = [{name: value[:0] for name, value in self._encode(filler).items()}]
        others = {name: column for name, column in batch.items() if name != self.clips_column}
        encoded = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        if conflicts := sorted(others.keys() & encoded.keys()):
            raise ValueError(f"the batch has the columns {', '.join(conflicts)}, which are results; rename them")
        return others | encoded

    def _encode(self, clips: np.ndarray) -> dict[str, np.ndarray]:
        """Encode at most one part, filled up with copies of its last clip."""
        filled = np.concatenate([clips, np.repeat(clips[-1:], self.batch_size - len(clips), axis=0)])
        video = resolve_clips(self.network, filled)
        static = {"stages": self.stages, "pool": self.pool, "score_fn": self.score_fn}
        outputs = _encode_clips(self.network.model, video, self.classes, self.vectors, **static)
        logits, activations, derivatives = jax.tree.map(lambda value: np.asarray(value)[: len(clips)], outputs)
        result = {LOGITS_COLUMN: logits}
        result |= {f"{ACTIVATIONS_COLUMN}{stage}": activations[stage] for stage in self.stages}
        return result | {f"{DERIVATIVES_COLUMN}{name}": value for name, value in derivatives.items()}

    def _clips(self, batch: dict[str, np.ndarray]) -> np.ndarray:
        """Return the clips of a batch; raise ValueError if they are not those of the network."""
        if self.clips_column not in batch:
            raise ValueError(unknown_name_message("column", [self.clips_column], batch))
        clips = np.asarray(batch[self.clips_column])
        expected = self.network.clip_spec.shape
        if not len(clips):
            return np.zeros((0, *expected), np.uint8)
        if clips.dtype == object and len({np.shape(clip) for clip in clips}) == 1:
            clips = np.stack([np.asarray(clip) for clip in clips])
        if clips.shape[1:] != expected or clips.dtype not in (np.uint8, np.float32):
            raise ValueError(
                f"the column {self.clips_column} has {clips.dtype} {clips.shape}; expected uint8 frames or normalised"
                f" float32 of shape (b, {', '.join(map(str, expected))})"
            )
        return clips

    def _check(self, bundle: VectorBundle | None, targets: Sequence[str]) -> None:
        problems = []
        known = tap.stages_of(self.network.model)
        if known and (unknown := [stage for stage in self.stages if stage not in known]):
            problems.append(unknown_name_message("stage", unknown, known))
        for kind, value, choices in (("pool", self.pool, POOLS), ("score_fn", self.score_fn, SCORE_FNS)):
            if value not in choices:
                problems.append(unknown_name_message(kind, [value], choices))
        if not 1 <= self.batch_size <= MAX_BATCH_SIZE:
            problems.append(f"batch_size must be 1 to {MAX_BATCH_SIZE}, got {self.batch_size}")
        if (bundle is None) != (not targets):
            problems.append("derivatives need both vectors and targets; pass both or none")
        if bundle is not None and fingerprint(self.network.model) != bundle.weights:
            problems.append("the vectors belong to another network; pass the model that they were made with")
        if problems:
            raise ValueError("; ".join(problems))

    def _stage_vectors(self, bundle: VectorBundle) -> dict[str, Array]:
        """Return the vectors by name with axes of length 1 where they are pooled."""
        stages = tuple({name.partition("|")[0]: None for name in bundle.arrays})
        video = jax.ShapeDtypeStruct((1, *self.network.clip_spec.shape), np.float32)
        _, values = jax.eval_shape(
            lambda model, video: tap.activations(model, video, stages), self.network.model, video
        )
        return {
            name: jnp.asarray(broadcast_vector(vector, values[name.partition("|")[0]].shape[1:], bundle.pool))
            for name, vector in bundle.arrays.items()
        }


@partial(jax.jit, static_argnames=("stages", "pool", "score_fn"))
def _encode_clips(
    model, video: Array, classes: Array, vectors: dict[str, Array], stages: tuple[str, ...], pool: str, score_fn: str
):
    """Return logits, pooled activations by stage, and derivatives (clip, class) by vector."""

    def widen(value):
        return value.astype(accumulation_dtype(value.dtype))

    def pooled(values):
        return {stage: pool_activations(widen(values[stage]), pool) for stage in stages}

    if not vectors:
        logits, activations = tap.activations(model, video, stages) if stages else (model(video, tap.identity_tap), {})
        return widen(logits), pooled(activations), {}

    def scores_with_logits(model, video, tapped):
        logits = model(video, tapped)
        return jnp.concatenate([SCORE_FNS[score_fn](widen(logits)), widen(logits)], axis=-1)

    all_stages = tuple(sorted({*stages, *(name.partition("|")[0] for name in vectors)}))
    result = tap.gradients_for_classes(Partial(scores_with_logits, model), video, classes, all_stages)
    derivatives = {}
    for name, vector in vectors.items():
        gradient = widen(result.gradients[name.partition("|")[0]])
        products = gradient * jnp.broadcast_to(vector, gradient.shape)
        derivatives[name] = products.sum(tuple(range(2, products.ndim))).T
    return result.logits[:, result.logits.shape[1] // 2 :], pooled(result.activations), derivatives
