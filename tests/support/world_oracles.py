"""Template-matching networks for the worlds that rely on the causes by construction, or cheat."""

import jax.numpy as jnp
import numpy as np

from vtcav_jax.worlds import glyphs
from vtcav_jax.worlds.spec import DIRECTION_STEPS, GLYPH_MASKS


def colour_mask(video, thing):
    """Return a mask of the pixels with the colour of the key or the distractor."""
    red, green, blue = jnp.moveaxis(video, -1, 0)
    white = jnp.minimum(jnp.minimum(red, green), blue)
    return (green - jnp.maximum(red, blue) > 0.35 if thing == "key" else white > 0.72).astype(jnp.float32)


def shape_fits(glyph):
    """Return the match of each shape at each position, (b, t, 4, h, w); the core may be flashing."""
    h, w = glyph.shape[-2:]
    cell = h // 32
    templates = np.zeros((4, h, w), np.float32)
    templates[:, : 7 * cell, : 7 * cell] = GLYPH_MASKS.repeat(cell, 1).repeat(cell, 2)
    templates[:, 2 * cell : 5 * cell, 2 * cell : 5 * cell] = 0
    spectrum = jnp.fft.fft2(glyph)[:, :, None] * jnp.conj(jnp.fft.fft2(jnp.asarray(templates)))[None, None]
    return 2 * jnp.fft.ifft2(spectrum).real - jnp.asarray(templates.sum((1, 2)))[None, None, :, None, None]


def shape_scores(video, thing):
    """Return one score per shape, (b, 4)."""
    return shape_fits(colour_mask(video, thing)).max((-1, -2)).mean(1)


def motion_matches(lit, speed):
    """Return the pixels that are lit, and lit again one step further in the next frame, (b, 4, t - 1, h, w)."""
    ends = [jnp.roll(lit[:, 1:], tuple(-speed * d for d in step), (2, 3)) for step in DIRECTION_STEPS.tolist()]
    return jnp.stack([lit[:, :-1] * end for end in ends], 1)


def direction_scores(video):
    return motion_matches(colour_mask(video, "key"), 2).sum((2, 3, 4)) / video.shape[1]


def flash_counts(video, region):
    """Return the amount of each colour in the key's core, or anywhere, in each frame: (b, t, 4)."""
    b, t, h = video.shape[:3]
    cells = range(2 * h // 32, 5 * h // 32)
    distance = [jnp.abs(video - jnp.asarray(c)[None, None, None, None]).max(-1) for c in glyphs.FLASH_COLOURS]
    flashing = (jnp.stack(distance, 2) < 0.3).astype(jnp.float32)  # b t 4 h w
    core = jnp.stack([jnp.roll(flashing, (-i, -j), (-2, -1)) for i in cells for j in cells]).sum(0)
    if region == "any":
        return core.max((-2, -1))
    key_position = shape_fits(colour_mask(video, "key")).max(2).reshape(b, t, 1, -1).argmax(-1, keepdims=True)
    return jnp.take_along_axis(core.reshape(b, t, 4, -1), key_position, -1)[..., 0]


def small_world_logits(looked_at, video):
    """Return the logits of the four questions of `GlyphWorld`; `looked_at` names what shape and flash are read from."""
    waves = jnp.fft.fft2(video.mean((1, 4)) - 0.5)
    scene = jnp.stack([jnp.abs(waves[:, ky, kx]) for ky, kx in glyphs.GRATING_CYCLES.tolist()], -1) / 50
    flash = flash_counts(video, looked_at["flash"]).max(1)
    return jnp.concatenate([shape_scores(video, looked_at["shape"]), direction_scores(video), flash, scene], -1)


def _yes_logits(score):
    return jnp.stack([-score, score], -1)


def events_logits(video, looked_at=("key", "distractor")):
    """Return the logits of all questions of `Events`; a cheat reads one glyph twice."""
    colours = flash_counts(video, "key")  # b t 4
    when = jnp.arange(1.0, 1 + video.shape[1])[None, :, None]
    present = colours.sum(1)
    time = (colours * when).sum(1) / jnp.maximum(present, 1)
    # for each colour and the next in the cycle, if both are present: the delay of the next one
    later = jnp.roll(time, -1, 1) - time
    order = jnp.where(jnp.minimum(present, jnp.roll(present, -1, 1)) > 4, later, 0.0)
    score = [shape_scores(video, thing) for thing in looked_at]
    other = [jnp.where(jnp.arange(4)[None] == k, -jnp.inf, s).max(-1) for s in score for k in (1, 3)]
    ring, bars = [score[i][:, 1] - other[2 * i] for i in (0, 1)], [score[i][:, 3] - other[2 * i + 1] for i in (0, 1)]
    either, both = jnp.maximum(*ring), -jnp.maximum(*bars)
    pairs = jnp.minimum(present, jnp.roll(present, -1, 1))
    return jnp.concatenate([-_yes_logits(order.sum(1)), pairs, *score, _yes_logits(either), _yes_logits(both)], -1)


def dots_logits(video, moving=True):
    """Return form and direction from displaced equal pixels; a cheat reads frame differences."""
    lit = 2 * (video.mean(-1) > 0.5).astype(jnp.float32) - 1
    pairs = motion_matches(lit, 1).mean(2) if moving else (lit[:, 1:] * lit[:, :-1]).mean(1)[:, None].repeat(4, 1)
    score = pairs.sum((2, 3))
    best = jnp.take_along_axis(pairs, score.argmax(1)[:, None, None, None], 1)[:, 0]  # b h w
    template = np.zeros((4, *best.shape[1:]), np.float32)
    template[:, :14, :14] = 2 * GLYPH_MASKS.repeat(2, 1).repeat(2, 2) - 1.0
    spectrum = (
        jnp.fft.fft2(best - (0.5 if moving else 0.0))[:, None] * jnp.conj(jnp.fft.fft2(jnp.asarray(template)))[None]
    )
    return jnp.concatenate([jnp.fft.ifft2(spectrum).real.max((-2, -1)), score / 10], -1)


def marker_logits(video):
    """Return the direction that the corner's colour indicates."""
    corner = video[:, :, :4, :4].mean((1, 2, 3))
    return -10 * jnp.abs(corner[:, None] - jnp.asarray(glyphs.FLASH_COLOURS)[None]).sum(-1)
