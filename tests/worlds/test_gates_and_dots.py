"""Worlds of order, joint causes, form from motion and a shortcut: contents, information in frames, and gates."""

import csv
import itertools
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from scipy.stats import binomtest, chi2_contingency, chisquare, ttest_1samp

from tests.support import world_oracles
from tests.support.typed import p_value, present, readable
from vtcav_jax import models, worlds
from vtcav_jax.attribution.videos import clip_windows
from vtcav_jax.clip_spec import ClipSpec
from vtcav_jax.data import SamplingConfig, open_source
from vtcav_jax.data.world_export import write_clips
from vtcav_jax.data.world_source import WorldSource
from vtcav_jax.evaluation import regions
from vtcav_jax.worlds import glyphs, render
from vtcav_jax.worlds.gates import expected_range, measure_gates
from vtcav_jax.worlds.spec import DIRECTION_STEPS

NAMES = ("events", "dots", "shortcut")
ORACLES = {
    "events": world_oracles.events_logits,
    "dots": world_oracles.dots_logits,
    "shortcut": world_oracles.marker_logits,
}


@pytest.fixture(scope="module", params=NAMES)
def clips(request):
    return worlds.make_clips(request.param, 48, 3)


def mask_of(clips, entity):
    return clips.masks[entity.replace("distractor", "dis")]


def changed(before, after):
    return (before.video != after.video).any(-1)


def coarse(clips, name):
    """Return the value of a factor, reduced to at most eight values."""
    count = clips.world.factors[name]
    return clips.factors[name] * min(count, 8) // count


def test_removal_changes_the_masked_pixels_and_no_others(clips):
    for entity in clips.world.entities:
        without = worlds.remove(clips, entity)
        seen = changed(clips, without)
        if entity == "scene":
            things = np.any([mask for name, mask in clips.masks.items() if not name.endswith("_box")], 0)
            assert seen[~things].mean() > 0.2 and not seen[things].any()
            continue
        mask = mask_of(clips, entity)
        assert mask.any() and not (seen & ~mask).any(), entity
        # many replacement dots equal the glyph's dots
        assert seen[mask].mean() > (0.3 if isinstance(clips.world, worlds.Dots) else 0.99), entity
        assert not mask_of(without, entity).any()
        assert [row for row in without.boxes["track"] if clips.world.tracks[row].startswith(entity)] == []


def test_redrawing_a_factor_changes_nothing_else(clips):
    for factor in clips.world.factors:
        other = worlds.redraw(clips, factor, 7)
        assert {name for name in clips.factors if (other.factors[name] != clips.factors[name]).any()} == {factor}
        assert (other.factors[factor] != clips.factors[factor]).all()
        assert changed(clips, other).any((1, 2, 3)).mean() > 0.9
        for name, question in clips.world.questions.items():
            moved = other.labels[name] != clips.labels[name]
            assert not moved.any() or factor in question.factors
            assert moved.all() == (question.factors == (factor,)), (factor, name)
        if factor in ("pair", "order", "times", "marker"):
            mask = {"marker": "marker"}.get(factor, "key_event")
            assert not (changed(clips, other) & ~(clips.masks[mask] | other.masks[mask])).any()
    np.testing.assert_array_equal(worlds.make_clips(clips.world, 3, 3, first=40).video, clips.video[40:43])


def test_boxes_cover_their_masks(clips):
    painted = np.zeros((len(clips.world.tracks), *clips.video.shape[:-1]), bool)
    for clip, frame, track, x1, y1, x2, y2 in clips.boxes.tolist():
        painted[track, clip, frame, y1:y2, x1:x2] = True
    for track, entity in enumerate(clips.world.tracks):
        mask, box = mask_of(clips, entity), painted[track]
        assert (mask <= box).all() and (
            box.sum() == mask_of(clips, f"{entity}_box").sum() if "event" not in entity else 1
        )


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_labels_are_balanced_and_depend_on_their_factors_only(name):
    world, n = worlds.WORLDS[name], 8000
    factors = render.sample_factors(world, 11, np.arange(n))
    for question in world.questions.values():
        label = question.label(factors)
        share = {"either": [9, 7], "both": [7, 9]}.get(name := _named(world, question))
        expected = None if share is None else np.array(share) / 16 * n
        assert chisquare(np.bincount(label), expected).pvalue > 1e-3, name
        for factor, values in factors.items():
            if factor in question.factors or factor in question.cause:
                continue
            table = np.zeros((8, len(question.answers)))
            np.add.at(table, (values * 8 // max(world.factors[factor], 8), label), 1)
            # One of over a hundred tables.
            assert p_value(chi2_contingency(table[table.sum(1) > 0])) > 1e-5, (name, factor)


def _named(world, question):
    return next(name for name, other in world.questions.items() if other == question)


def test_no_window_alone_determines_the_order():
    world = worlds.Events()
    counts = [4, 2, world.factors["times"]]
    pair, order, times = (np.array(values) for values in zip(*itertools.product(*map(range, counts))))
    flashes = list(world.flashes({"pair": pair, "order": order, "times": times}, "key"))
    assert [name for name, _, _ in flashes] == ["key_event_1", "key_event_2"]
    seen: dict = {}
    for _, colours, first in flashes:
        for colour, start, label in zip(colours.tolist(), first.tolist(), order.tolist()):
            seen.setdefault((colour, start), []).append(label)
    assert len(seen) == 16 and all(np.mean(labels) == 0.5 for labels in seen.values())
    (_, one, early), (_, other, late) = flashes
    assert (early < late).all() and set(((other - one) % 4).tolist()) == {1, 3}
    np.testing.assert_array_equal((other - one) % 4 == 1, order == 0)  # forward in the cycle
    both = {}  # nor do both colours and windows without their order
    for colours, when, label in zip(np.sort([one, other], 0).T.tolist(), zip(early, late), order.tolist()):
        both.setdefault((*colours, *when), []).append(label)
    assert all(sorted(labels) == [0, 1] for labels in both.values())


def test_questions_on_times_depend_on_the_same_flashes():
    clips = worlds.make_clips("events_timed", 64, 3)
    np.testing.assert_array_equal(clips.video, worlds.make_clips("events", 64, 3).video)
    labels, pair = clips.labels, clips.factors["pair"]
    np.testing.assert_array_equal(np.sort([labels["first"], labels["second"]], 0), np.sort([pair, (pair + 1) % 4], 0))
    forward = (labels["second"] - labels["first"]) % 4 == 1
    np.testing.assert_array_equal(forward, labels["order"] == 0)
    colours = np.array(glyphs.FLASH_COLOURS)
    windows = clips.world.questions["when"].answers
    for i in range(len(clips)):
        early, late = (int(frame) for frame in windows[labels["when"][i]].split(" and "))
        for frame, head in ((early, "first"), (late, "second")):
            core = clips.masks["key_event"][i, frame]
            assert np.abs(clips.video[i, frame][core].mean(0) - colours[labels[head][i]]).max() < 0.1


def test_joint_causes_match_their_definitions():
    questions = worlds.Events().questions
    shape, other = (np.array(values) for values in zip(*itertools.product(range(4), range(4))))
    factors = {"shape": shape, "dis_shape": other}
    either, both = questions["either"].label(factors), questions["both"].label(factors)
    assert either.tolist() == [int(a == 1 or b == 1) for a, b in zip(shape, other)]
    assert both.tolist() == [int(a != 3 and b != 3) for a, b in zip(shape, other)]
    assert (either.sum(), both.sum()) == (7, 9)


def test_single_frames_of_dots_do_not_reveal_the_glyph():
    world = worlds.Dots(noise=0.0)
    clips = worlds.make_clips(world, 96, 5)
    lit, key = clips.video[..., 0] > 0.5, clips.masks["key"]
    for frame in range(world.frames):
        for where in (key[:, frame], ~key[:, frame]):
            assert binomtest(lit[:, frame][where].sum(), where.sum(), world.density).pvalue > 1e-3
    differs, still = lit[:, 1:] != lit[:, :-1], key[:, 1:]
    for where in (still, ~still):  # the two values of each pixel are independent, and so are clips
        share = (differs & where).sum((1, 2, 3)) / where.sum((1, 2, 3))
        assert p_value(ttest_1samp(share, 2 * world.density * (1 - world.density))) > 1e-3
    mean = lit.mean(1)  # nor do all frames without their order
    within, without = mean[key[:, 0]], mean[~key[:, 0]]
    np.testing.assert_allclose(within.var(), without.var(), rtol=0.03)
    again = 0  # but dots move by one step inside the glyph
    for clip, d in enumerate(clips.factors["direction"]):
        step = tuple(world.speed * np.array(DIRECTION_STEPS[d]))
        moved = np.roll(lit[clip, :-1] & key[clip, :-1], step, (1, 2)) & key[clip, 1:]
        start = np.roll(key[clip, :-1], step, (1, 2)) & key[clip, 1:]
        np.testing.assert_array_equal(moved, lit[clip, 1:] & start)
        again += moved.sum()
    assert again > 0


def test_removing_the_scene_replaces_the_dots_around_the_key():
    world = worlds.Dots(noise=0.0)
    clips = worlds.make_clips(world, 24, 5)
    lit, key = clips.video[..., 0] > 0.5, clips.masks["key"]
    for entity, unchanged in (("scene", key), ("key", ~key)):
        lit_without = worlds.remove(clips, entity).video[..., 0] > 0.5
        np.testing.assert_array_equal(lit_without[unchanged], lit[unchanged])
        # The same number is lit, and half of them differ
        for changed in ((lit_without != lit)[~unchanged], lit_without[~unchanged]):
            assert binomtest(int(changed.sum()), changed.size, world.density).pvalue > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize(("name", "question"), [("dots", "form"), ("dots", "direction"), ("events", "order")])
def test_the_best_linear_guess_from_one_frame_is_at_chance(name, question):
    n, frame = 2400, 2
    clips = worlds.make_clips(name, n, 9)
    pixels = clips.video[:, frame].reshape(n, -1)
    pixels = pixels.reshape(n, -1, 3).mean(-1) if name == "dots" else pixels.reshape(n, 16, 2, 16, 2, 3).mean((2, 4))
    x = pixels.reshape(n, -1) - pixels.mean()
    label = clips.labels[question]
    target = np.eye(label.max() + 1)[label] - 1 / (label.max() + 1)
    train, test = slice(0, n // 2), slice(n // 2, n)
    for strength in (1.0, 100.0):
        weights = np.linalg.solve(x[train].T @ x[train] + strength * np.eye(x.shape[1]), x[train].T @ target[train])
        right = ((x[test] @ weights).argmax(1) == label[test]).sum()
        assert binomtest(int(right), n // 2, 1 / (label.max() + 1), "greater").pvalue > 1e-3


@pytest.mark.slow
def test_the_marker_agrees_with_the_direction_at_the_given_rate():
    n = 8000
    for agreement, spec in ((0.95, "shortcut"), (0.25, "shortcut_broken")):
        factors = render.sample_factors(worlds.WORLDS[spec], 2, np.arange(n))
        same = factors["marker"] == factors["direction"]
        assert binomtest(int(same.sum()), n, agreement).pvalue > 1e-3
        assert chisquare(np.bincount(((factors["marker"] - factors["direction"]) % 4)[~same])[1:]).pvalue > 1e-3
        assert chisquare(np.bincount(factors["marker"])).pvalue > 1e-3
    table = np.zeros((4, 4))
    np.add.at(table, (factors["marker"], factors["direction"]), 1)
    assert p_value(chi2_contingency(table)) > 1e-3
    clips = worlds.make_clips(worlds.Shortcut(noise=0.0), 16, 0)
    corner = clips.video[:, :, :4, :4]
    np.testing.assert_array_equal(
        corner, np.broadcast_to(glyphs.FLASH_COLOURS[clips.factors["marker"]][:, None, None, None], corner.shape)
    )
    assert (clips.masks["marker"].sum((1, 2, 3)) == 16 * 8).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_oracles_pass_every_gate(name):
    result = measure_gates(ORACLES[name], name, 40, 2)
    assert result.check() is result
    heads = list(worlds.WORLDS[name].questions)
    assert all(word in result.table() for word in (*heads, *worlds.WORLDS[name].factors, "frozen", "scene"))
    for j, (head, question) in enumerate(worlds.WORLDS[name].questions.items()):
        causes = question.cause or question.factors
        assert {factor for factor, stayed in result.other_answer_unchanged.items() if not np.isnan(stayed[j])} == set(
            causes
        ), head


@pytest.mark.slow
def test_cheating_networks_fail_the_expected_gates():
    cheats = {
        "events": (
            Partial(lambda video: world_oracles.events_logits(video, ("key", "key"))),
            ("G3 necessity either unchanged without dis_shape", "G1 accuracy both", "lost with distractor"),
            " order ",
        ),
        "dots": (
            Partial(lambda video: world_oracles.dots_logits(video, moving=False)),
            ("G1 accuracy form", "G3 necessity form", "G2 sufficiency form unchanged by dots", "G1 accuracy direction"),
            "?",
        ),
        "shortcut": (
            Partial(world_oracles.direction_scores),
            (
                "G1 accuracy direction",
                "G2 sufficiency direction unchanged by direction",
                "G3 necessity direction unchanged without its cause",
                "G4 time direction unchanged when reversed",
                "lost with marker",
                "changed with the key",
            ),
            "?",
        ),
    }
    for name, (model, lines, fine) in cheats.items():
        with pytest.raises(ValueError, match="gates failed") as error:
            measure_gates(model, name, 40, 2).check()
        failures = str(error.value).split("\n\n")[0]
        assert all(line in failures for line in lines) and fine not in failures, failures


def test_gates_check_the_number_of_classes_per_question():
    assert expected_range("frozen", "dynamic", 2) == (0.0, 0.5) and expected_range("frozen", "form", 4) == (0.0, 0.25)
    with pytest.raises(
        ValueError, match=r"expected 18 logits per clip, 2 for order, 4 for colours, .* 2 for both, got"
    ):
        measure_gates(lambda video: jnp.zeros((len(video), 16)), "events", 9)


@pytest.mark.slow
@pytest.mark.parametrize("world", NAMES)
def test_shipped_networks_pass_their_gates(world):
    """The Swins pass on unseen clips; --task=evaluate_methods checks all networks on more clips."""
    loaded = models.load(f"worlds_{world}_swin")
    assert loaded.heads == worlds.WORLDS[world].heads
    geometry = loaded.clip_spec

    def prepare(video):
        return np.asarray(geometry.normalise(np.rint(255 * video).astype(np.uint8)))

    measure_gates(loaded.model, world, 300, 5, prepare=prepare).check()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: worlds.Dots(density=1.0), "density 1.0"),
        (lambda: worlds.Dots(size=13), "size 13 must be a multiple of cell 2 and at least 14"),
        (lambda: worlds.Dots(speed=5), "speed 5 must be at least 1 and less than"),
        (lambda: worlds.Shortcut(agreement=1.5), "agreement 1.5"),
        (lambda: worlds.Events(event_times=(0, 1)), "increase by at least 2"),
        (lambda: worlds.remove(worlds.make_clips("dots", 1, 0), "distractor"), "no entity named 'distractor'"),
        (lambda: worlds.redraw(worlds.make_clips("events", 1, 0), "flash", 0), "no factor named 'flash'"),
    ],
)
def test_errors_say_what_to_do(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("name", NAMES)
def test_worlds_are_sources_and_files(name, tmp_path):
    source = open_source(f"worlds:{name}:4:3")
    clips = worlds.make_clips(name, 4, 3)
    assert source.heads == clips.world.heads
    for i, item in enumerate(source.items):
        assert item.labels == {question: int(values[i]) for question, values in clips.labels.items()}
    write_clips(clips, tmp_path)
    with (tmp_path / "manifest.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["path", *(f"label:{head}" for head in source.heads)]
    with (tmp_path / "boxes.csv").open() as file:
        assert {row["label"] for row in csv.DictReader(file)} == set(clips.world.tracks)
    others = [open_source(f"worlds:{other}:4:3").identity for other in worlds.WORLDS]
    assert len(set(others)) == len(others)

    clip_spec = ClipSpec(frames=8, size=32)
    windows = clip_windows.stream_windows(source, clip_spec, SamplingConfig(normalise=False), num_workers=0)
    window = readable(next(windows))
    assert isinstance(source, WorldSource)
    world: Any = source.world  # every world in this test has a speed
    for head, question in world.questions.items():
        there = present(regions.target_region(source, window, clip_spec, head))
        boxes = [clips.masks[mask][0] for mask in (regions.SQUARE_MASKS[entity] for entity in question.entities)]
        np.testing.assert_array_equal(there, np.any(boxes, 0))
    flow = present(regions.ground_truth_flow(source, window))
    key = clips.masks["key"][0, 1:]
    step = world.speed * DIRECTION_STEPS[clips.factors["direction"][0]][::-1]
    np.testing.assert_array_equal(flow[key], np.broadcast_to(step.astype(np.float32), flow[key].shape))
