"""Partitions and infills, compared with scipy's filters and a solved Laplace equation."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage, sparse
from scipy.sparse import linalg

from vtcav_jax.attribution.removal import segments
from vtcav_jax.attribution.result import VIDEO, Attribution
from vtcav_jax.evaluation.faithfulness import infill, partition

SHAPE = (2, 6, 8, 12, 3)


@pytest.fixture(scope="module")
def clips():
    return np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)


@pytest.fixture(scope="module")
def keep_mask():
    return np.random.default_rng(1).random(SHAPE[:4]) < 0.6


@pytest.mark.slow
@pytest.mark.parametrize("name", infill.INFILLS)
def test_kept_voxels_are_unchanged_and_none_kept_is_the_background(clips, keep_mask, name):
    fill, video = infill.get_infill(name), jnp.asarray(clips)
    start = fill.make_background(video, 0)
    filled = np.asarray(fill.compose(video, start, jnp.asarray(keep_mask)))
    np.testing.assert_array_equal(filled[keep_mask], clips[keep_mask])
    assert (filled[~keep_mask] != clips[~keep_mask]).all(-1).mean() > 0.99 and np.isfinite(filled).all()
    np.testing.assert_array_equal(fill.compose(video, start, jnp.ones(SHAPE[:4], bool)), clips)
    nothing = fill.compose(video, start, jnp.zeros(SHAPE[:4], bool))
    np.testing.assert_allclose(nothing, start, atol=1e-5)
    np.testing.assert_allclose(fill.make_background(video[1:], 0), start[1:], atol=1e-6)  # independent of other clips


def test_blur_is_scipys(clips):
    blurred = infill.INFILLS["blur"].make_background(jnp.asarray(clips), 0)
    sigmas = (0, 1, 1, 12 / 8, 0)
    reach = [0, *(min(int(3 * s + 1), n - 1) for s, n in zip(sigmas[1:4], SHAPE[1:4])), 0]
    expected = ndimage.gaussian_filter(clips, sigmas, mode="mirror", radius=reach)
    np.testing.assert_allclose(blurred, expected, atol=1e-5)


def test_hold_repeats_the_last_kept_voxel(clips, keep_mask):
    fill, video = infill.INFILLS["hold"], jnp.asarray(clips)
    keep_mask = keep_mask.copy()
    keep_mask[0, :, 3, 3], keep_mask[1, :, 2, 2] = False, np.arange(6) == 4
    held = np.asarray(fill.compose(video, fill.make_background(video, 0), jnp.asarray(keep_mask)))
    for i, t, y, x in np.ndindex(SHAPE[:4]):
        there = np.flatnonzero(keep_mask[i, :, y, x])
        before = there[there <= t]
        if len(there):
            np.testing.assert_array_equal(held[i, t, y, x], clips[i, before[-1] if len(before) else there[0], y, x])
    np.testing.assert_allclose(held[0, :, 3, 3], np.tile(clips[0].mean((0, 1, 2)), (6, 1)), atol=1e-5)
    assert (held[1, :, 2, 2] == clips[1, 4, 2, 2]).all()


def test_diffusion_solves_the_laplace_equation(clips, keep_mask):
    video, sizes = jnp.asarray(clips[:1]), SHAPE[1:4]
    diffused = np.asarray(infill.diffuse(video, jnp.broadcast_to(video.mean((1, 2, 3), keepdims=True), video.shape),
                                      jnp.asarray(keep_mask[:1]), sweeps=300))  # fmt: skip
    number = np.arange(np.prod(sizes)).reshape(sizes)
    rows, columns, weights = [], [], []
    for place in np.ndindex(sizes):
        rows.append(number[place])
        columns.append(number[place])
        weights.append(1.0)
        if keep_mask[0][place]:
            continue
        near = [(q, 2 ** (3 - sum(map(abs, d)))) for d in np.ndindex(3, 3, 3) for d in [np.array(d) - 1] if d.any()
                for q in [tuple(np.array(place) + d)] if all(0 <= c < n for c, n in zip(q, sizes))]  # fmt: skip
        total = sum(w for _, w in near)
        for q, w in near:
            rows.append(number[place])
            columns.append(number[q])
            weights.append(-w / total)
    matrix = sparse.csr_matrix((weights, (rows, columns)))
    right = np.where(keep_mask[0][..., None], clips[0], 0).reshape(-1, 3).astype(np.float64)
    solutions = [np.asarray(linalg.spsolve(matrix, right[:, c])) for c in range(3)]
    expected = np.stack(solutions, -1).reshape(clips[0].shape)
    np.testing.assert_allclose(diffused[0], expected, atol=1e-3)


def test_the_noise_of_the_infill_depends_on_clip_and_seed(clips):
    start = infill.INFILLS["linear"].make_background
    first, repeated, other_seed = (
        start(jnp.asarray(clips), 0),
        start(jnp.asarray(clips), 0),
        start(jnp.asarray(clips), 1),
    )
    np.testing.assert_array_equal(first, repeated)
    assert (first != other_seed).mean() > 0.99
    noise = np.asarray(first) - clips.mean((1, 2, 3), keepdims=True)
    assert noise.std() == pytest.approx(infill.INFILL_NOISE_SD * clips.std(), rel=0.05)


def test_cells_partition_the_clip():
    cut = partition.token_partition((6, 8, 12))
    assert cut.grid_shape == (3, 2, 3) and cut.n_cells == 18 and cut.clip_shape == (6, 8, 12)
    assert set(cut.volumes[0]) == {32}
    assert partition.token_partition((7, 9, 12)).grid_shape == (3, 2, 3) and partition.token_partition(
        (1, 2, 3)
    ).grid_shape == (1, 1, 1)
    assert partition.frame_partition((6, 8, 12)).grid_shape == (6, 1, 1)
    coarse = Attribution(np.zeros((1, 6, 1, 2), np.float32), "last", True, 1, "cam")
    fine = Attribution(np.zeros((1, 6, 8, 12), np.float32), VIDEO, True, 1, "saliency")
    assert partition.partition_for_maps((6, 8, 12), [coarse, fine]).grid_shape == (3, 1, 2)


def test_maps_are_pooled_whatever_their_grid(clips):
    maps, cut = clips[..., 0], partition.token_partition((6, 8, 12))
    means = maps.reshape(2, 3, 2, 2, 4, 3, 4).mean((2, 4, 6)).reshape(2, 18)
    np.testing.assert_allclose(partition.cell_means(maps, cut), means, atol=1e-6)
    np.testing.assert_allclose(
        partition.cell_means(maps, partition.Partition(cut.cell_ids)), means, atol=1e-6
    )  # without a grid
    by_clip = partition.Partition(np.stack([cut.cell_ids[0], 17 - cut.cell_ids[0]]))
    np.testing.assert_allclose(partition.cell_means(maps, by_clip), [means[0], means[1][::-1]], atol=1e-6)
    coarse = np.arange(2 * 3, dtype=np.float32).reshape(2, 3, 1, 1)
    np.testing.assert_array_equal(partition.cell_means(coarse, cut), np.repeat(coarse.reshape(2, 3), 6, 1))


def test_names_of_maps_and_errors(clips):
    cut, maps = partition.token_partition((6, 8, 12)), clips[..., 0]
    of_video, of_stage = (Attribution(maps, stage, True, 1, "cam") for stage in (VIDEO, "layers.1"))
    assert list(partition.name_maps([of_video, of_stage])) == ["cam", "cam layers.1"]
    with pytest.raises(ValueError, match="several maps are named cam;"):
        partition.name_maps([of_video, of_video])
    cell_values = partition.pool_to_cells({"a": of_video, "b": maps, "c": np.ones((2, 18))}, cut, 2)
    assert cell_values.shape == (3, 2, 18) and cell_values.dtype == np.float32
    np.testing.assert_array_equal(cell_values[0], cell_values[1])
    bad = np.where(np.arange(2).reshape(2, 1, 1, 1) == 1, np.inf, maps)
    with pytest.raises(ValueError, match=r"d is \(2, 17\); e is not finite for clips 1; f is \(1, 6, 8, 12\)"):
        partition.pool_to_cells({"d": np.ones((2, 17)), "e": bad, "f": maps[:1]}, cut, 2)
    with pytest.raises(ValueError, match="got none"):
        partition.pool_to_cells({}, cut, 2)
    pooled = {"a": partition.cell_means(maps, cut)}
    frames = partition.pool_to_frames({"a": pooled["a"]}, pooled, cut, 2)
    np.testing.assert_allclose(frames[0], np.repeat(pooled["a"].reshape(2, 3, 6).mean(-1), 2, 1), atol=1e-6)
    np.testing.assert_allclose(
        partition.pool_to_frames({"a": of_video}, pooled, cut, 2)[0], maps.mean((2, 3)), atol=1e-6
    )


def test_ties_are_broken_at_random_and_signs_count(clips):
    values = np.array([[[0, -2, 3, 0], [1, 1, 1, 1]], [[0, 0, 0, 0], [4, 3, 2, 1]]], np.float32)
    ranks = partition.rank_cells(values, clips, 0)
    assert ranks[0, 0, 2] == 0 and ranks[0, 0, 1] == 3 and set(ranks[0, 0, [0, 3]].tolist()) == {1, 2}
    assert ranks[1, 1].tolist() == [0, 1, 2, 3]
    ties = np.zeros((1, 2, 400), np.float32)
    first_ranks, second_ranks = partition.rank_cells(ties, clips, 0), partition.rank_cells(ties, clips, 1)
    assert (np.sort(first_ranks, -1) == np.arange(400)).all() and (first_ranks != second_ranks).mean() > 0.9
    assert (first_ranks[0, 0] != first_ranks[0, 1]).mean() > 0.9
    np.testing.assert_array_equal(partition.rank_cells(ties[:, 1:], clips[1:], 0), first_ranks[:, 1:])


def test_supervoxels_follow_edges():
    clips = np.random.default_rng(0).normal(0, 0.05, (2, 4, 16, 16, 3)).astype(np.float32)
    clips[0, :, 3:9, 5:12] += 1  # not aligned with the grid
    clips[1, :, :7] += 1
    cut = partition.supervoxel_partition(clips, (2, 4, 4))
    assert cut.cell_ids.shape == (2, 4, 16, 16) and cut.n_cells == 32 and (cut.volumes > 0).all()
    bright = clips.mean(-1) > 0.5
    share = np.stack(
        [np.bincount(n.ravel(), weights=b.ravel()) / v for n, b, v in zip(cut.cell_ids, bright, cut.volumes)]
    )
    assert (np.minimum(share, 1 - share) < 0.05).mean() > 0.95  # cells do not mix bright and dark voxels
    plain = partition.grid_partition((4, 16, 16), (2, 4, 4)).cell_ids[0]
    mixed = np.bincount(plain.ravel(), weights=bright[0].ravel()) / np.bincount(plain.ravel())
    assert ((mixed > 0.05) & (mixed < 0.95)).sum() >= 10
    np.testing.assert_array_equal(partition.supervoxel_partition(clips[1:], (2, 4, 4)).cell_ids[0], cut.cell_ids[1])
    stiff = partition.supervoxel_partition(clips, (2, 4, 4), compactness=1e4)
    assert (stiff.cell_ids == plain).mean() > 0.95
    assert (partition.supervoxel_partition(0 * clips, (2, 4, 4)).cell_ids == plain).mean() > 0.95
    with pytest.raises(ValueError, match="compactness above 0"):
        partition.supervoxel_partition(clips, (2, 4, 4), compactness=0.0)
    values = np.ones((1, 2, 4, 16, 16), np.float32) * bright
    np.testing.assert_allclose(partition.cell_means(values[0], cut), share, atol=1e-5)


def test_an_empty_cell_gets_a_voxel():
    points = np.arange(6, dtype=np.float64)[:, None]
    cell_ids = segments._fill_empty_cells(np.array([0, 0, 0, 2, 2, 2]), np.array([[1.0], [4.4], [4.0]]), points, 3)
    assert cell_ids.tolist() == [0, 0, 0, 2, 1, 2]
