"""Does it tell the truth? Clips of a world, chosen by one factor, against those with the factor's other values."""

import numpy as np

from vtcav_jax import models
from vtcav_jax.tcav.batches import held
from vtcav_jax.tcav.encoding import Reading, encode
from vtcav_jax.tcav.families import adjusted
from vtcav_jax.tcav.gram import Gram, gram
from vtcav_jax.tcav.significance import label_tests
from vtcav_jax.tcav.vectors import labels
from vtcav_jax.worlds import QUESTIONS, make_clips

STAGES = ("layers.0", "layers.1", "norm")
VALUE = 0  # of each factor: plus, left, red, 0
COUNT, EACH = 200, 25  # clips of concepts; targets of each class
STATIC = ("shape", "scene", "flash")  # what one frame shows


def clips_of(geometry, seed, count=COUNT):
    found = make_clips("small", count, seed)
    return found.labels, geometry.normalised(np.rint(255 * found.video).astype(np.uint8)), found.factors["t0"]


def asked(loaded, seed):
    """Adjusted p and derivative by (head, factor, kind, stage), in one family."""
    geometry = models.PRESETS[loaded.preset].geometry
    answers, dynamic, t0 = clips_of(geometry, seed)
    frame = 2 * t0, (2 * t0 + 4) % geometry.frames  # in the first the key flashes, in the other it does not
    flashing, plain = (np.repeat(dynamic[np.arange(COUNT), at][:, None], geometry.frames, 1) for at in frame)
    truth, targets, _ = clips_of(geometry, seed + 1000, 8 * EACH)
    rows = {head: np.flatnonzero(truth[head] == VALUE)[:EACH] for head in QUESTIONS}
    classes = [loaded.slices[head].start + VALUE for head in QUESTIONS]
    out = encode(
        loaded.model,
        held(np.concatenate([dynamic, flashing, plain])),
        held(targets),
        classes,
        STAGES,
        Reading("space", micro_batch=50),
    )
    found = {}
    for stage in STAGES:
        whole = gram(out.examples[stage], out.gradients[stage], len(classes))
        parts = [
            Gram(whole.kernel, whole.products[c : c + 1, some], whole.gradients[c : c + 1, some][:, :, some])
            for c, some in enumerate(rows.values())
        ]
        for factor in QUESTIONS:
            for kind, first in (("dynamic", 0), ("static", COUNT)):
                if kind == "static" and factor not in STATIC:
                    continue
                if kind == "static":
                    first = COUNT if factor == "flash" else 2 * COUNT
                here = answers[factor] == VALUE
                signed = labels(first + np.flatnonzero(here), first + np.flatnonzero(~here), 3 * COUNT)
                tests = label_tests(parts, signed, permutations=1999, seed=[seed, 7], enough=50)
                for head, test in zip(QUESTIONS, tests):
                    found[head, factor, kind, stage] = test.step_p[0], test.step[0], test.derivative[0], test.p[0]
    p = adjusted(np.array([value[0] for value in found.values()]))
    return {key: (float(a), *map(float, value)) for (key, value), a in zip(found.items(), p)}


if __name__ == "__main__":
    import sys

    loaded = models.load(sys.argv[1])
    for seed in map(int, sys.argv[2:]):
        found = asked(loaded, seed)
        for key, value in found.items():
            own = key[0] == key[1]
            if own or value[0] <= 0.05:
                print(seed, "OWN  " if own else "OTHER", key, *(f"{v:.3g}" for v in value))
