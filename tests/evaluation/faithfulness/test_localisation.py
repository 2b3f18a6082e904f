"""Localisation metrics compared with scikit-learn, known maps and chance; and spliced clips."""

import jax.numpy as jnp
import numpy as np
import pytest

from vtcav_jax.attribution import Class, Margin
from vtcav_jax.attribution.result import Attribution
from vtcav_jax.evaluation.faithfulness import localisation, splice


@pytest.fixture(scope="module")
def drawn():
    random = np.random.default_rng(0)
    inside = random.random((4, 60)) < 0.3
    return random.integers(-3, 8, (4, 60)).astype(np.float32) + inside, inside  # with ties


def test_scores_are_sklearns(drawn):
    metrics = pytest.importorskip("sklearn.metrics")
    values, inside = drawn
    scores = localisation.score_localisation(values, inside)
    for i in range(4):
        assert scores.scores["auroc"][i] == pytest.approx(metrics.roc_auc_score(inside[i], values[i]))
        assert scores.scores["precision"][i] == pytest.approx(metrics.average_precision_score(inside[i], values[i]))


def test_shares_by_their_definition(drawn):
    values, inside = drawn
    fine = values + np.random.default_rng(1).random(values.shape, np.float32) / 2  # without ties
    scores = localisation.score_localisation(fine, inside)
    for i in range(4):
        k, positive = inside[i].sum(), np.maximum(fine[i], 0)
        top = set(np.argsort(-fine[i])[:k].tolist()) & set(np.flatnonzero(inside[i]).tolist())
        assert scores.scores["mass"][i] == pytest.approx(positive[inside[i]].sum() / positive.sum(), rel=1e-5)
        assert scores.scores["rank"][i] == pytest.approx(len(top) / k)
        assert scores.scores["iou"][i] == pytest.approx(len(top) / (2 * k - len(top)))
        assert scores.chance["mass"][i] == pytest.approx(k / 60)


def test_the_mask_is_perfect_and_a_constant_is_chance(drawn):
    _, inside = drawn
    best = localisation.score_localisation(inside.astype(np.float32), inside)
    for name, skill in best.skill.items():
        np.testing.assert_allclose(skill, 1, atol=1e-6, err_msg=name)
    for value in (2, 0, -1):
        flat = localisation.score_localisation(np.full(inside.shape, value, np.float32), inside)
        for name, skill in flat.skill.items():
            np.testing.assert_allclose(skill, 0, atol=1e-6, err_msg=name)
    worst = localisation.score_localisation(-inside.astype(np.float32), inside)
    assert (worst.skill["auroc"] == -1).all() and (worst.skill["rank"] < 0).all()  # not clipped


def test_random_maps_score_at_chance():
    random = np.random.default_rng(2)
    inside = np.tile(np.arange(50) < 10, (400, 1))
    scores = localisation.score_localisation(random.random((400, 50), np.float32), inside)
    for name, skill in scores.skill.items():
        assert abs(skill.mean()) < (0.1 if name == "precision" else 0.03), name


def test_a_halo_does_not_count(drawn):
    values, inside = drawn
    counted = np.random.default_rng(3).random(inside.shape) < 0.7
    other = np.where(counted, values, 100).astype(np.float32)
    for name, score in localisation.score_localisation(values, inside, counted).scores.items():
        np.testing.assert_array_equal(score, localisation.score_localisation(other, inside, counted).scores[name])
    empty = localisation.score_localisation(values, np.zeros_like(inside))
    assert all(np.isnan(v).all() for d in (empty.scores, empty.chance, empty.skill) for v in d.values())
    with pytest.raises(ValueError, match="must have the same shape"):
        localisation.score_localisation(values, inside[:, 1:])


def test_pointing():
    masks = np.zeros((3, 4, 30, 30), bool)
    masks[:, :2, 10:15, 10:15] = True
    maps = np.zeros((3, 4, 30, 30), np.float32)
    maps[0, 1, 12, 12] = 1  # in the mask
    maps[1, 1, 16, 12] = 1  # two pixels below: within the tolerance
    maps[2, 3, 12, 12] = 1  # in a frame without mask
    hit, chance = localisation.pointing_game(maps, masks)
    assert hit.tolist() == [1, 1, 0]
    np.testing.assert_allclose(chance, 9 * 9 * 2 / (30 * 30 * 4))
    assert localisation.pointing_game(maps, masks, tolerance=0.0)[0].tolist() == [1, 0, 0]
    # A ring around the mask: all maxima are outside, but their centroid is not
    ring = localisation.dilate(masks, 5) & ~localisation.dilate(masks, 4)
    assert not localisation.pointing_game(ring.astype(np.float32), masks, tolerance=0.0)[0].any()
    half = maps[:1].copy()
    half[0, 3, 1, 1] = 1
    assert localisation.pointing_game(half, masks[:1])[0] == 0.5
    # Coarse maps point at the centres of their cells
    coarse = np.zeros((3, 2, 3, 3), np.float32)
    coarse[:, 0, 1, 1] = 1
    assert (localisation.pointing_game(coarse, masks)[0] == 1).all()  # at 15, 15 in frame 1, one pixel outside
    assert (localisation.pointing_game(coarse, masks, tolerance=0.0)[0] == 0).all()
    coarse_masks = masks.copy()
    coarse_masks[:, 1, 15, 15] = True
    assert (localisation.pointing_game(coarse, coarse_masks, tolerance=0.0)[0] == 1).all()


def test_pointing_frame_by_frame():
    masks, maps = np.zeros((2, 3, 10, 10), bool), np.zeros((2, 3, 10, 10), np.float32)
    masks[0, 0, 2:4, 2:4] = masks[0, 2, 5:7, 5:7] = True
    maps[0, 0, 2, 2], maps[0, 1, 0, 0], maps[0, 2, 0, 0] = 1, 9, 1
    hit, chance = localisation.pointing_game(maps, masks, by_frame=True, tolerance=0.0)
    assert hit[0] == 0.5 and chance[0] == pytest.approx(0.04) and np.isnan(hit[1])


def test_dilation_is_scipys():
    from scipy import ndimage

    masks = np.random.default_rng(0).random((2, 3, 12, 9)) < 0.05
    for pixels in (0, 1, 3):
        side = 2 * pixels + 1
        expected = ndimage.binary_dilation(masks, np.ones((1, 1, side, side)))
        np.testing.assert_array_equal(localisation.dilate(masks, pixels), expected)


def test_boxes_become_masks():
    masks = localisation.masks_of_boxes([(0, 1, 2, 3, 5, 4), (1, 0, -3, 8, 1.5, 20)], (2, 2, 10, 10))
    assert masks.sum() == 3 + 2 * 2 and masks[0, 1, 3, 2:5].all() and masks[1, 0, 8:, :2].all()
    assert not localisation.masks_of_boxes(np.zeros((0, 6)), (1, 1, 2, 2)).any()
    with pytest.raises(ValueError, match="clip 2, frame 0"):
        localisation.masks_of_boxes([(2, 0, 0, 0, 1, 1)], (2, 2, 10, 10))


def test_temporal_localisation():
    event = np.zeros((2, 8), bool)
    event[:, 2:4] = True
    maps = np.zeros((2, 8, 3, 3), np.float32)
    maps[0, 2:4], maps[1, 5] = 1, 1
    scores = localisation.score_temporal_localisation(maps, event)
    assert scores.scores["hit"].tolist() == [1, 0] and scores.chance["hit"].tolist() == [0.25, 0.25]
    assert scores.scores["mass"].tolist() == [1, 0] and scores.scores["auroc"][0] == 1
    assert scores.scores["iou"][0] == 1 and scores.skill["hit"][1] == pytest.approx(-1 / 3)
    assert localisation.score_temporal_localisation(maps - 9, event).skill["hit"].tolist() == [
        0,
        0,
    ]  # no positive values: chance
    half = localisation.score_temporal_localisation(maps[:, ::2], event)  # steps of two frames
    assert half.scores["hit"][0] == 1


def test_class_balanced_mean():
    values = np.array([1, 1, 1, 0, np.nan], np.float32)
    assert localisation.class_balanced_mean(values, np.array([0, 0, 0, 1, 1])) == 0.5
    assert np.isnan(localisation.class_balanced_mean(values[4:], np.array([0])))


def colours(video, tap=lambda name, value: value):
    return tap("x", video).sum((1, 2, 3))


def of_colour(model, clips, target):
    """Return the colour channel of each class as its map."""
    classes = np.asarray(target.classes)
    maps = np.take_along_axis(np.asarray(clips), classes[:, None, None, None, None], -1)[..., 0]
    return Attribution(maps[:, ::2], "x", True, 1, "colour")


def blind(model, clips, target):
    return Attribution(np.asarray(clips).sum(-1), "x", True, 1, "all")


def test_splices_identify_class_specific_maps():
    random = np.random.default_rng(0)
    a, b = (np.zeros((6, 8, 4, 4, 3), np.float32) for _ in range(2))
    a[..., 0], b[..., 2] = random.random((2, 6, 8, 4, 4))
    one, other = np.zeros(6, int), Margin(np.full(6, 2))
    scores = splice.splice_test(of_colour, colours, a, b, one, other)
    np.testing.assert_array_equal(scores.share, 1)
    assert scores.score[0] == 1
    turned = splice.splice_test(of_colour, colours, b, a, one, other)
    assert turned.score[0] == 0
    unasked = splice.splice_test(blind, colours, a, b, one, other)
    assert unasked.score == (splice.SPLICE_CHANCE,) * 3  # right for one class and wrong for the other
    none = splice.splice_test(of_colour, colours, 0 * a, 0 * b, one, other)
    assert (none.share == 0.5).all() and none.score[0] == 0.5
    with pytest.raises(ValueError, match="pairs 0, 1, 2, 3, 4, 5 are not"):
        splice.splice_test(blind, colours, a, b, one, one)
    with pytest.raises(ValueError, match="must be classes"):
        splice.splice_test(blind, colours, a, b, one, lambda logits: logits[:, 0])


def test_splices_use_the_middle_of_each_clip():
    seen = []

    def spy(model, clips, target):
        seen.append(np.asarray(clips)[0, :, 0, 0, 0])
        return blind(model, clips, target)

    a = np.arange(8, dtype=np.float32).reshape(1, 8, 1, 1, 1) * np.ones((1, 8, 2, 2, 3), np.float32)
    splice.splice_test(spy, colours, a, 10 + a, Class(np.array([0])), Class(np.array([1])))
    assert seen[0].tolist() == [2, 3, 4, 5, 12, 13, 14, 15] and seen[2].tolist() == [12, 13, 14, 15, 2, 3, 4, 5]
    assert len(seen) == 4 and jnp.isfinite(seen[0]).all()
