"""Videos that show the same recording: copies in other encodings, sizes and frame rates, and cuts of one another.

A video's fingerprint is a series of small grey pictures without their mean and scale. One video shows the recording of
another if 3 of 4 pictures, taken evenly from the first, correlate by at least `MIN_CORRELATION` with any picture of the
second. Crops and mirror images are not recognised, and plain pictures, such as close-ups of a ball, can match wrongly.

Measured: copies of eight real videos down to 64 x 80 pixels and quantiser 45, and cuts shifted by up to half a second,
correlate by 0.965 or more, different recordings by 0.68 or less. Of the 159,600 pairs of different clips of two worlds
none reaches the threshold, though 1,270 of them have the same background (maximum 0.936). Copies of the worlds' clips
of 32 x 32 pixels at quantiser 35 or more are not recognised (0.90).
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from vtcav_jax.console import progress
from vtcav_jax.data.decode import MissingFramesError, VideoError, decode_frames, probe
from vtcav_jax.data.resize import resize

MIN_CORRELATION = 0.95
MATCHING_SHARE = 0.75  # of the compared pictures
N_COMPARED = 8  # pictures of the one video that are searched in the other
PICTURE_SIZE = 16
MIN_CONTRAST = 4.0  # standard deviation in grey levels; flatter pictures, as in a fade, are left out
MIN_PICTURES, MAX_PICTURES, PICTURES_PER_SECOND = 64, 1200, 4  # of a video; all frames if it has fewer
GREY = np.array([0.299, 0.587, 0.114], np.float32)

Fingerprint = Float[np.ndarray, "_ pixels"]  # of norm 1 and mean 0


def near_duplicate_groups(paths: Sequence[Path]) -> tuple[tuple[Path, ...], ...]:
    """Return the groups of two or more videos that show one recording; unreadable files are in none."""
    prints = _read_fingerprints(paths)
    parent = list(range(len(paths)))

    def root(i: int) -> int:
        while parent[i] != i:
            i = parent[i]
        return i

    for i, j in _matches(prints, prints):
        first, second = sorted((root(i), root(j)))
        parent[second] = first
    groups: dict[int, list[Path]] = {}
    for i, path in enumerate(paths):
        groups.setdefault(root(i), []).append(path)
    return tuple(tuple(group) for group in groups.values() if len(group) > 1)


def near_duplicate_pairs(paths: Sequence[Path], others: Sequence[Path]) -> tuple[tuple[Path, Path], ...]:
    """Return the pairs of a video in `paths` and one in `others` that show one recording."""
    prints, other_prints = _read_fingerprints(paths), _read_fingerprints(others)
    pairs = {*_matches(prints, other_prints), *((i, j) for j, i in _matches(other_prints, prints))}
    return tuple((paths[i], others[j]) for i, j in sorted(pairs))


def _matches(prints: Sequence[Fingerprint], others: Sequence[Fingerprint]) -> list[tuple[int, int]]:
    """Return the pairs of different fingerprints of which the first shows the recording of the second."""
    usable = [j for j, other in enumerate(others) if len(other)]
    if not usable:
        return []
    pictures = np.concatenate([others[j] for j in usable])
    starts = np.cumsum([0, *(len(others[j]) for j in usable)])
    matches = []
    for i, own in enumerate(prints):
        if not len(own):
            continue
        compared = own[np.unique(((np.arange(N_COMPARED) + 0.5) / N_COMPARED * len(own)).astype(int))]
        best = np.maximum.reduceat(compared @ pictures.T, starts[:-1], axis=1)
        share = (best >= MIN_CORRELATION).mean(0)
        matches += [(i, usable[k]) for k in np.flatnonzero(share >= MATCHING_SHARE) if others[usable[k]] is not own]
    return matches


def _read_fingerprints(paths: Sequence[Path]) -> list[Fingerprint]:
    prints = []
    for (path,) in progress(([path] for path in paths), len(paths), "fingerprints"):
        try:
            prints.append(read_fingerprint(path))
        except VideoError:
            prints.append(_normalise([]))
    return prints


def read_fingerprint(path: Path) -> Fingerprint:
    """Return the fingerprint of a video; raise `VideoError` if it cannot be read."""
    try:
        return _fingerprint(path, by_decoding=False)
    except MissingFramesError:
        return _fingerprint(path, by_decoding=True)


def _fingerprint(path: Path, by_decoding: bool) -> Fingerprint:
    index = probe(path, by_decoding=by_decoding)
    count = min(max(MIN_PICTURES, int(index.duration * PICTURES_PER_SECOND)), MAX_PICTURES, len(index.times))
    numbers = np.linspace(0, len(index.times) - 1, count).round().astype(int)
    pictures = {}
    for number, frame in decode_frames(index, numbers.tolist()):
        step = max(min(frame.shape[:2]) // (8 * PICTURE_SIZE), 1)
        small = resize(frame[::step, ::step], (PICTURE_SIZE, PICTURE_SIZE), antialias=True)
        pictures[number] = (small.astype(np.float32) @ GREY).ravel()
    return _normalise([pictures[number] for number in sorted(pictures)])


def _normalise(pictures: Sequence[np.ndarray]) -> Fingerprint:
    stacked = np.array(pictures, np.float32).reshape(len(pictures), PICTURE_SIZE**2)
    centred = stacked - stacked.mean(1, keepdims=True)
    norm = np.linalg.norm(centred, axis=1, keepdims=True)
    return (centred / np.maximum(norm, 1e-6))[norm[:, 0] >= MIN_CONTRAST * PICTURE_SIZE]
