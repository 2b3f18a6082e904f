"""Worlds: pixels against masks, independence of factors, and gates on networks with a known cause."""

import csv
import itertools
import math

import av
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.tree_util import Partial
from scipy.stats import chi2_contingency, chisquare

from tests.support import world_oracles
from tests.support.typed import compile_count, p_value
from vtcav_jax import tap, worlds
from vtcav_jax.data.world_export import write_clips
from vtcav_jax.worlds import glyphs, render
from vtcav_jax.worlds.gates import _run_model, measure_gates
from vtcav_jax.worlds.spec import DIRECTION_STEPS

SMALL = worlds.GlyphWorld()
HEADS = tuple(worlds.GLYPH_QUESTIONS)
MASK_OF = {"key": "key", "distractor": "dis", "key_event": "key_event", "distractor_event": "dis_event"}


@pytest.fixture(scope="module")
def clips():
    return worlds.make_clips("small", 64, 3)


@pytest.fixture(scope="module")
def many():
    """Return the factors of many tiny clips; except for sizes, they do not depend on rendering."""
    return worlds.make_clips(
        worlds.GlyphWorld(frames=2, size=16, distance=8, event_times=(0, 1), event_frames=1), 6000, 5
    )


def changed(before, after):
    return (before.video != after.video).any(-1)


@pytest.mark.parametrize(("world", "shape"), [("small", (8, 32, 32, 3)), ("large", (16, 64, 64, 3))])
def test_presets(world, shape):
    clips = worlds.make_clips(world, 3, 0)
    assert clips.video.shape == (3, *shape) and clips.video.dtype == np.float32
    assert 0 <= clips.video.min() < 0.1 and 0.9 < clips.video.max() <= 1
    assert len(np.unique(clips.video[0])) > 1000


@pytest.mark.parametrize("world", ["small", "large"])
@pytest.mark.parametrize("entity", list(MASK_OF))
def test_removal_changes_the_masked_pixels_and_no_others(world, entity):
    clips = worlds.make_clips(world, 16, 1)
    without = worlds.remove(clips, entity)
    mask, seen = clips.masks[MASK_OF[entity]], changed(clips, without)
    assert mask.any((1, 2, 3)).all() or entity.startswith("distractor")  # the key may hide the distractor
    np.testing.assert_array_equal(seen & ~mask, False)
    # A pixel is unchanged only where noise pushes both colours out of the range.
    assert seen[mask].mean() > 0.99
    assert not without.masks[MASK_OF[entity]].any()


def test_masks_have_the_colours_of_their_entities():
    quiet = worlds.make_clips(worlds.GlyphWorld(noise=0.0, amplitude=0.0), 32, 2)
    for entity, colour in (("key", glyphs.KEY_COLOUR), ("dis", glyphs.DISTRACTOR_COLOUR)):
        glyph = quiet.masks[entity] & ~quiet.masks[entity + "_event"]
        np.testing.assert_array_equal(
            quiet.video[glyph], np.broadcast_to(np.array(colour, np.float32), (glyph.sum(), 3))
        )
    for mask, factor in (("key_event", "flash"), ("dis_event", "dis_flash")):
        clip = np.nonzero(quiet.masks[mask])[0]
        np.testing.assert_array_equal(
            quiet.video[quiet.masks[mask]], glyphs.FLASH_COLOURS[quiet.factors[factor][clip]], err_msg=mask
        )
    scene = ~(quiet.masks["key"] | quiet.masks["dis"])
    np.testing.assert_array_equal(quiet.video[scene], np.float32(0.5))
    assert (quiet.masks["key"] <= quiet.masks["key_box"]).all()
    assert (quiet.masks["key_box"].sum((2, 3)) == 49).all()
    assert (quiet.masks["key_event"].sum((1, 2, 3)) == 2 * 9).all()


def test_removing_the_scene_leaves_the_objects(clips):
    seen = changed(clips, worlds.remove(clips, "scene"))
    assert not (seen & (clips.masks["key"] | clips.masks["dis"])).any()
    gone = worlds.remove(worlds.remove(worlds.remove(clips, "scene"), "key"), "distractor")
    np.testing.assert_allclose(gone.video.mean(), 0.5, atol=1e-3)
    np.testing.assert_allclose(gone.video.std(), SMALL.noise, rtol=0.02)
    assert len(gone.boxes) == 0


@pytest.mark.parametrize("factor", list(SMALL.factors))
def test_redraw_changes_its_factor_in_every_clip_and_nothing_else(clips, factor):
    other = worlds.redraw(clips, factor, 7)
    assert (other.factors[factor] != clips.factors[factor]).all()
    assert {name for name in clips.factors if (other.factors[name] != clips.factors[name]).any()} == {factor}
    np.testing.assert_array_equal(worlds.redraw(clips, factor, 7).video, other.video)
    assert (worlds.redraw(clips, factor, 8).factors[factor] != other.factors[factor]).any()
    if factor.startswith("dis_"):
        allowed = clips.masks["dis"] | other.masks["dis"]
        assert not (changed(clips, other) & ~allowed).any()
    if factor in ("shape", "direction", "flash", "t0"):
        # Where the key uncovers the distractor, the change is within the key's old square.
        allowed = clips.masks["key"] | other.masks["key"]
        assert not (changed(clips, other) & ~allowed).any()
    assert changed(clips, other).any((1, 2, 3)).mean() > 0.9  # a flash behind the key changes nothing


@pytest.mark.slow
def test_redrawn_values_are_uniform_among_the_others(many):
    other = worlds.redraw(many, "shape", 1)
    further = (other.factors["shape"] - many.factors["shape"]) % 4
    assert chisquare(np.bincount(further, minlength=4)[1:]).pvalue > 1e-3


def test_a_clip_does_not_depend_on_the_others(clips):
    few = worlds.make_clips(SMALL, 3, 3)
    late = worlds.make_clips("small", 5, 3, first=40)
    np.testing.assert_array_equal(few.video, clips.video[:3])
    np.testing.assert_array_equal(late.video, clips.video[40:45])
    np.testing.assert_array_equal(worlds.redraw(late, "x", 1).video, worlds.redraw(clips, "x", 1).video[40:45])
    some = clips[[5, 2]]
    np.testing.assert_array_equal(worlds.remove(some, "key").video, worlds.remove(clips, "key").video[[5, 2]])
    high = clips.factors["y"] < 9
    np.testing.assert_array_equal(clips[high].index, np.flatnonzero(high))
    assert changed(few, worlds.make_clips("small", 3, 4)).any((1, 2, 3)).all()


def test_factors_are_uniform_and_pairwise_independent(many):
    names = list(many.factors)
    level = 0.01 / (len(names) + math.comb(len(names), 2))  # Bonferroni-corrected level of 1 %; fixed seed
    counts = many.world.factors
    for name in names:
        observed = np.bincount(many.factors[name], minlength=counts[name])
        assert len(observed) == counts[name] and chisquare(observed).pvalue > level, name
    for a, b in itertools.combinations(names, 2):
        # Coarse values give at least ten clips per cell.
        values = [many.factors[name] * min(counts[name], 4) // counts[name] for name in (a, b)]
        table = np.zeros((min(counts[a], 4), min(counts[b], 4)))
        np.add.at(table, tuple(values), 1)
        assert p_value(chi2_contingency(table)) > level, (a, b)


def every_place(direction, dis_direction=0, world=SMALL):
    """Return factors of one direction with the key once at each position, for the exact marginal over positions."""
    y, x = np.divmod(np.arange(world.size**2), world.size)
    fixed = {name: np.zeros(world.size**2, int) for name in world.factors}
    return fixed | {"y": y, "x": x, "direction": fixed["y"] + direction, "dis_direction": fixed["y"] + dis_direction}


@pytest.mark.parametrize("entity", ["key", "distractor"])
def test_one_frame_has_no_information_on_the_direction_of_an_object(entity):
    for direction in range(4):
        factors = every_place(direction, (direction + 1) % 4)
        y, x = SMALL.entity_square(factors, entity)[:2]
        for frame in range(SMALL.frames):
            assert len(set(zip(y[:, frame].tolist(), x[:, frame].tolist()))) == SMALL.size**2


@pytest.mark.parametrize(("distance", "best"), [(12, 0.356), (0, 0.25)])
def test_information_in_both_positions_is_as_documented(distance, best):
    """Return the accuracy of an ideal observer of both positions in the most informative frame."""
    world = worlds.GlyphWorld(distance=distance)
    offsets = glyphs._offsets(world.size, distance)
    share = np.zeros((world.frames, 4, world.size, world.size))
    for frame, d, e in itertools.product(range(world.frames), range(4), range(4)):
        moved = (DIRECTION_STEPS[e] - DIRECTION_STEPS[d]) * world.speed * frame
        y, x = ((offsets + moved) % world.size).T
        np.add.at(share[frame, d], (y, x), 1 / (16 * len(offsets)))
    np.testing.assert_allclose(share.max(1).sum((1, 2)).max(), best, atol=1e-3)


def test_the_first_frame_keeps_the_objects_apart(clips):
    first = clips.masks["key_box"][:, 0] & clips.masks["dis_box"][:, 0]
    assert not first.any()
    y, x = (np.stack(SMALL.entity_square(clips.factors, e)[:2])[..., 0] for e in ("key", "distractor"))
    gap = np.abs(y - x)
    assert (np.hypot(*np.minimum(gap, SMALL.size - gap)) >= SMALL.distance).all()


def test_a_shift_of_the_torus_is_a_shift_of_the_factors():
    world = worlds.GlyphWorld(noise=0.0)
    clips = worlds.make_clips(world, 24, 9)
    dy, dx = 5, -11
    turns = glyphs.GRATING_CYCLES[clips.factors["scene"]] @ (dy, dx)
    moved = {
        "y": (clips.factors["y"] + dy) % world.size,
        "x": (clips.factors["x"] + dx) % world.size,
        "phase": (clips.factors["phase"] - turns) % world.size,
    }
    shifted = render._render(world, 9, clips.index, clips.factors | moved, frozenset())
    np.testing.assert_array_equal(shifted.video, np.roll(clips.video, (dy, dx), (2, 3)))
    np.testing.assert_array_equal(shifted.masks["dis"], np.roll(clips.masks["dis"], (dy, dx), (2, 3)))


@pytest.mark.parametrize("world", ["small", "large"])
def test_boxes_cover_their_masks(world):
    clips = worlds.make_clips(world, 12, 4)
    painted = np.zeros((len(worlds.GLYPH_TRACKS), *clips.video.shape[:-1]), int)
    for clip, frame, track, x1, y1, x2, y2 in clips.boxes.tolist():
        painted[track, clip, frame, y1:y2, x1:x2] += 1
    np.testing.assert_array_equal(painted[0], clips.masks["key_box"])
    np.testing.assert_array_equal(painted[1], clips.masks["dis_box"])
    np.testing.assert_array_equal(painted[2], clips.masks["key_event"])
    np.testing.assert_array_equal(painted[3].astype(bool) & ~clips.masks["key"], clips.masks["dis_event"])
    assert set(worlds.remove(clips, "key").boxes["track"]) == {1, 3}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: worlds.make_clips("smal", 1, 0), "did you mean small"),
        (lambda: worlds.make_clips("small", 0, 0), "n of at least 1"),
        (lambda: worlds.redraw(worlds.make_clips("small", 1, 0), "shap", 0), "no factor named 'shap'"),
        (lambda: worlds.remove(worlds.make_clips("small", 1, 0), "dis"), "no entity named 'dis'"),
        (lambda: worlds.GlyphWorld(size=12, distance=30, event_times=(7,)), "size 12.*30 pixels apart.*event_times"),
    ],
)
def test_errors_say_what_to_do(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def coalition_values(clip, step):
    """Compute Shapley values from their definition, over all coalitions; `value[s]` is the score of coalition s."""
    n = clip.size
    members = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
    coalitions = (members * clip.ravel()).reshape(-1, *clip.shape)
    value = np.zeros((2**n, 4))
    t, h, w = clip.shape
    for d, (dy, dx) in enumerate(((0, -step), (0, step), (-step, 0), (step, 0))):
        for i, y, x in np.ndindex(t - 1, h, w):
            end = coalitions[:, i + 1, (y + dy) % h, (x + dx) % w]
            value[:, d] += np.maximum(coalitions[:, i, y, x] + end - 1.0, 0)
    size = members.sum(1)
    phi = np.zeros((n, 4))
    for v in range(n):
        without = np.flatnonzero(members[:, v] == 0)
        s = size[without]
        weight = np.array([math.factorial(k) * math.factorial(n - k - 1) / math.factorial(n) for k in range(n)])[s]
        phi[v] = weight @ (value[without | (1 << v)] - value[without])
    return phi.T.reshape(4, *clip.shape), value[-1]


@pytest.mark.slow
@pytest.mark.parametrize(("shape", "step"), [((3, 2, 2), 1), ((2, 2, 3), 1), ((2, 1, 6), 2), ((4, 3, 1), 1)])
def test_shapley_values_equal_the_definition(shape, step):
    for seed in range(3):
        clip = (np.random.default_rng(seed).random(shape) < 0.7).astype(np.float32)
        phi, score = coalition_values(clip, step)
        video = clip[None, ..., None]
        np.testing.assert_allclose(worlds.shapley_values(video, step)[:, 0], phi, atol=1e-12)
        np.testing.assert_array_equal(worlds.MotionPairs(step)(jnp.asarray(video))[0], score)


@pytest.mark.slow
def test_shapley_values_are_integrated_gradients_and_add_up():
    video, _ = worlds.binary_clips(3, 0, size=8, dots=5)
    phi = worlds.shapley_values(video)
    np.testing.assert_allclose(phi.sum((2, 3, 4)).T, worlds.MOTION_PAIRS(jnp.asarray(video)), rtol=1e-6)

    # An even number of midpoints, so that exactly half of each path is beyond the kink.
    steps = (np.arange(10) + 0.5) / 10

    def gradients(alpha, k):
        return jax.grad(lambda x: worlds.MOTION_PAIRS(x)[:, k].sum())(alpha * jnp.asarray(video))

    for k in range(4):
        mean = np.mean([gradients(jnp.float32(alpha), k) for alpha in steps], 0)
        np.testing.assert_allclose((mean * video)[..., 0], phi[k], atol=1e-6)
    with pytest.raises(ValueError, match="0 and 1"):
        worlds.shapley_values(video / 2)


@pytest.mark.slow
def test_the_analytic_network_is_a_model_with_taps():
    video, labels = worlds.binary_clips(100, 1)
    tapped = tap.activations_and_gradients(worlds.MOTION_PAIRS, video[:8], labels[:8], worlds.MOTION_PAIRS.stages)
    assert list(tapped.activations) == ["sums", "pairs"]
    np.testing.assert_array_equal(tapped.activations["pairs"].sum((1, 2, 3)), tapped.logits)
    np.testing.assert_array_equal(worlds.MOTION_PAIRS(jnp.asarray(video)).argmax(-1), labels)
    np.testing.assert_array_equal(worlds.binary_clips(5, 1)[0], video[:5])
    three = jnp.asarray(video[:8]).repeat(3, -1)
    np.testing.assert_allclose(worlds.MOTION_PAIRS(three), tapped.logits, rtol=1e-5)


@pytest.mark.slow
def test_an_oracle_passes_every_gate():
    model = Partial(lambda video: world_oracles.small_world_logits({"shape": "key", "flash": "key"}, video))
    result = measure_gates(model, n_clips=72, seed=2)  # 72 is not a multiple of the batch size
    assert result.check() is result
    assert result.stable.mean(0).min() > 0.9
    table = result.table()
    for row in (*SMALL.factors, "reversed", "frozen", "accuracy", "distractor_event", *HEADS):
        assert row in table
    causes = np.array([result.other_answer_unchanged[head] for head in HEADS])
    np.testing.assert_allclose(np.diag(causes), 0, atol=0.03)
    assert (
        np.isnan(causes).sum() == 12
        and np.isnan(np.array([result.same_answer_unchanged[head] for head in HEADS])).sum() == 4
    )


@pytest.mark.slow
def test_cheating_networks_fail_the_expected_gates():
    model = Partial(lambda video: world_oracles.small_world_logits({"shape": "distractor", "flash": "any"}, video))
    result = measure_gates(model, n_clips=64, seed=2)
    with pytest.raises(ValueError, match="gates failed") as error:
        result.check()
    message = str(error.value)
    for line in (
        "G1 accuracy shape",
        "G2 sufficiency shape unchanged by dis_shape",
        "G3 necessity shape unchanged without its cause",
        "G5 entity share of shape's margin",
        "G1 accuracy flash",
        "G2 sufficiency flash unchanged by dis_flash",
    ):
        assert line in message
    assert not [line for line in result.failures() if " direction " in line or " scene " in line]
    assert result.stable[:, HEADS.index("shape")].mean() < 0.2


def test_gates_compile_once_and_check_logits():
    world = worlds.GlyphWorld(frames=2, size=14, distance=7, event_times=(0, 1), event_frames=1)
    before = compile_count(_run_model)
    module = nnx.Linear(3, 16, rngs=nnx.Rngs(0))
    for _ in range(2):
        measure_gates(module, world, 9, batch_size=4, prepare=lambda video: video.mean((1, 2, 3)))
    assert compile_count(_run_model) == before + 1
    with pytest.raises(ValueError, match=r"expected 16 logits per clip, 4 for shape, .*got shape \(9, 3\)"):
        measure_gates(lambda video: video.mean((1, 2, 3)), world, 9)
    with pytest.raises(ValueError, match="finite"):
        measure_gates(lambda video: jnp.full((len(video), 16), jnp.nan), world, 9)
    silent = measure_gates(lambda video: jnp.zeros((len(video), 16)), world, 9)
    assert any("G5" in line for line in silent.failures())


def test_exported_videos_equal_the_clips(tmp_path):
    clips = worlds.make_clips("small", 3, 6, first=10)
    paths = write_clips(clips, tmp_path / "out")
    assert [path.name for path in paths] == [f"clip_6_{i:06d}.mp4" for i in (10, 11, 12)]
    for path, video in zip(paths, clips.video):
        with av.open(path) as container:
            frames = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
        assert frames.shape == video.shape
        # Rounding errors of 8 bits, of YUV (up to 1.8 levels in blue) and of the conversion back.
        assert np.abs(frames - 255 * video).max() < 3.5

    with (tmp_path / "out" / "boxes.csv").open() as file:
        rows = list(csv.DictReader(file))
    painted = {label: np.zeros(clips.video.shape[:-1], bool) for label in worlds.GLYPH_TRACKS}
    for row in rows:
        clip = [path.name for path in paths].index(row["file"])
        x1, y1, x2, y2 = (int(row[name]) for name in ("x1", "y1", "x2", "y2"))
        assert worlds.GLYPH_TRACKS[int(row["track"])] == row["label"]
        painted[row["label"]][clip, int(row["frame"]), y1:y2, x1:x2] = True
    np.testing.assert_array_equal(painted["key"], clips.masks["key_box"])
    np.testing.assert_array_equal(painted["distractor"], clips.masks["dis_box"])
    np.testing.assert_array_equal(painted["key_event"], clips.masks["key_event"])

    with (tmp_path / "out" / "manifest.csv").open() as file:
        answers = list(csv.DictReader(file))
    for i, row in enumerate(answers):
        assert row["path"] == paths[i].name
        for question, names in worlds.GLYPH_QUESTIONS.items():
            assert row[f"label:{question}"] == names[clips.labels[question][i]]
    assert not list((tmp_path / "out").glob(".*"))


def test_modules_that_need_jax_are_imported_on_access():
    assert set(worlds.__all__) <= {name for name in worlds.__all__ if getattr(worlds, name) is not None}
    with pytest.raises(AttributeError, match="no attribute 'gate'"):
        _ = worlds.gate
