"""Concepts at one stage (layer): of each discovery method, of floors that discover nothing, and of known factors.

Floors are random directions and principal components with both signs. The ceiling has one direction per value of a
factor, that of a linear classifier of the clips' mean activations, fitted with the labels that discovery lacks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from vtcav_jax.discovery.completeness import fit_readout
from vtcav_jax.discovery.config import DECOMPOSITIONS
from vtcav_jax.discovery.dictionaries import Dictionary, TokenPairs, encode_tokens, fit_dictionary
from vtcav_jax.discovery.token_sample import TokenSample
from vtcav_jax.worlds.glyphs import GLYPH_QUESTIONS

MAX_TOKENS = 20_000  # as `vtcav discover` by default
NUM_CONCEPTS = 24
RANDOM, PCA, SUPERVISED = "random", "pca", "supervised"
# Methods and floors, with their numbers of concepts
METHODS = (
    *(("nmf", NUM_CONCEPTS), ("nmf", 32), ("convex_nmf", NUM_CONCEPTS), ("topk_sae", NUM_CONCEPTS)),
    *(("kmeans", NUM_CONCEPTS), (RANDOM, NUM_CONCEPTS), (PCA, NUM_CONCEPTS)),
)
KEY_FACTORS, DISTRACTOR_FACTORS = tuple(GLYPH_QUESTIONS), ("dis_shape", "dis_direction")
VALUES_PER_FACTOR = 4
MIN_CHANNEL_SCALE = 0.1  # of the root mean square, for supervised vectors
CLIPS_PER_BATCH = 50

Grids = Float[np.ndarray, "_ t h w c"]
Factors = Mapping[str, Int[np.ndarray, " n"]]


@dataclass(frozen=True, eq=False)
class MethodConcepts:
    """Concepts of one method and seed, their scores in the clips they were fitted to, and codes in other clips."""

    directions: Float[np.ndarray, "k c"]
    fit_scores: Float[np.ndarray, "n_fit k"]
    scores: Float[np.ndarray, "n k"]
    codes: Float[np.ndarray, "n t h w k"]


def sample_tokens(grids: Grids, seed: int) -> TokenSample:
    """Sample activations of the clips as the first pass of discovery does."""
    sample = TokenSample.empty(grids.shape[1:], -(-MAX_TOKENS // len(grids)), seed)
    for i, grid in enumerate(grids):
        sample.add(i, grid)
    return sample


def find_concepts(
    method: str, k: int, sample: TokenSample, fit_grids: Grids, factors: Factors, grids: Grids, seed: int
) -> MethodConcepts:
    """Fit concepts to `fit_grids`, whose `factors` only the ceiling uses, and encode both sets of clips."""
    tokens = sample.centred()[0]
    fit_x, x = fit_grids - sample.mean, grids - sample.mean
    if method in DECOMPOSITIONS:
        dictionary = fit_dictionary(method, tokens, k, seed)
    else:
        dictionary = _linear_dictionary(_reference_directions(method, k, tokens, fit_x, factors, seed))
    fit_codes, codes = (encode_clips(method, dictionary, part) for part in (fit_x, x))
    directions = np.asarray(dictionary.directions)
    if method == SUPERVISED:  # linear in the mean activation, which the classifier reads
        fit_scores, scores = (part.mean((1, 2, 3)) @ directions.T for part in (fit_x, x))
    else:
        fit_scores, scores = fit_codes.mean((1, 2, 3)), codes.mean((1, 2, 3))
    return MethodConcepts(directions, fit_scores, scores, codes)


def encode_clips(method: str, dictionary: Dictionary, x: Grids) -> Float[np.ndarray, "n t h w k"]:
    """Return the codes of centred activations; those of floors and ceiling are the positive parts of projections."""
    encode = partial(encode_tokens, method) if method in DECOMPOSITIONS else project_tokens
    parts = []
    for start in range(0, len(x), CLIPS_PER_BATCH):
        part = x[start : start + CLIPS_PER_BATCH]
        padded = np.concatenate([part, np.repeat(part[-1:], CLIPS_PER_BATCH - len(part), 0)])
        parts.append(np.asarray(encode(dictionary, padded))[: len(part)])
    return np.concatenate(parts)


@jax.jit
def project_tokens(dictionary: Dictionary, x: Float[Array, "... c"]) -> Float[Array, "... k"]:
    return jax.nn.relu(x @ dictionary.directions.T)


def _reference_directions(
    method: str, k: int, tokens: TokenPairs, fit_x: Grids, factors: Factors, seed: int
) -> Float[np.ndarray, "k c"]:
    if method == RANDOM:
        directions = np.random.default_rng(seed).standard_normal((k, tokens.now.shape[1]))
    elif method == PCA:
        components = np.linalg.eigh(tokens.now.T @ tokens.now)[1][:, ::-1][:, : k // 2].T
        directions = np.concatenate([components, -components])
    else:
        mean, names = fit_x.mean((1, 2, 3)), (*KEY_FACTORS, *DISTRACTOR_FACTORS)
        # Channels that are almost always 0 would have weights so large that nothing else is left of the direction
        min_scale = MIN_CHANNEL_SCALE * float(np.sqrt(mean.var(0).mean()))
        directions = np.concatenate(
            [fit_readout(mean, factors[name], VALUES_PER_FACTOR, min_scale)[0].T for name in names]
        )
    return (directions / np.linalg.norm(directions, axis=1, keepdims=True)).astype(np.float32)


def _linear_dictionary(directions: Float[np.ndarray, "k c"]) -> Dictionary:
    rows = jnp.asarray(directions)
    return Dictionary(rows, jnp.float32(1), jnp.float32(0), jnp.zeros_like(rows), jnp.zeros(len(rows)))


def factor_values(factors: Factors, names: Sequence[str]) -> list[np.ndarray]:
    """Return which clips have each value of the factors, factor by factor."""
    return [factors[name] == value for name in names for value in range(VALUES_PER_FACTOR)]
