"""Training: randomness depends on seed and step only, so an interrupted run ends like an uninterrupted one."""

import csv
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.support.cli_runner import run_cli, stop_cli_server
from tests.support.devices import device_environment
from vtcav_jax.cli.commands.train import report_accuracy
from vtcav_jax.clip_spec import ClipSpec
from vtcav_jax.data import Clip, SamplingConfig, SourceItem, VideoError, open_source, stream
from vtcav_jax.models import Network
from vtcav_jax.models import parameters as weights
from vtcav_jax.report.figures.training import draw_training_curves
from vtcav_jax.stats.intervals import wilson_ci
from vtcav_jax.tap import identity_tap
from vtcav_jax.training import loop
from vtcav_jax.training.clip_memory import stream_epochs
from vtcav_jax.training.evaluate import measure_accuracy
from vtcav_jax.training.loop import DivergedError, TrainConfig, train_network

pytestmark = pytest.mark.usefixtures("usual_promotion")  # optax mixes step counts and floats

CLIP_SPEC = ClipSpec(frames=2, size=4, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
CONFIG = TrainConfig(steps=12, batch_size=8, learning_rate=0.05, warmup=2, checkpoint_every=4, weight_decay=0.0)
HEADS: dict[str, tuple[str, ...]] = {"colour": ("red", "green", "blue"), "bright": ("dark", "light")}
NO_HEADS: dict[str, tuple[str, ...]] = {}
ONE_CLASS: dict[str, tuple[str, ...]] = {"colour": ("red",)}


class MeanColour(nnx.Module):
    """Network of two layers on the mean colour."""

    stages = ("pool",)

    def __init__(self, rngs: nnx.Rngs):
        self.body = nnx.Linear(3, 16, rngs=rngs)
        self.head = nnx.Linear(16, 5, rngs=rngs)

    def __call__(self, video, tap=identity_tap):
        x = tap("pool", video.mean((1, 2, 3)))
        return self.head(jax.nn.relu(self.body(x)))


def make():
    return MeanColour(nnx.Rngs(0))


@dataclass(frozen=True)
class Colours:
    """Source of clips of one colour; every eleventh is unreadable, every seventh has no label for brightness."""

    n_clips: int = 50
    spec: str = "colours"
    identity: str = "colours"
    heads = HEADS

    @property
    def items(self):
        labels = [{"colour": i % 3} | ({} if i % 7 == 0 else {"bright": i // 3 % 2}) for i in range(self.n_clips)]
        return tuple(SourceItem(f"clip {i}", known) for i, known in enumerate(labels))

    def read(self, i, clip_spec, sampling):
        if i % 11 == 10:
            raise VideoError(f"clip {i} is broken")
        video = np.zeros((1, *clip_spec.shape), np.uint8)
        video[..., i % 3] = (60, 200)[i // 3 % 2]
        return Clip(video, np.arange(2)[None], np.zeros((1, 2)), False, str(i))


run = partial(train_network, make, Colours(), CLIP_SPEC, num_workers=0)


def parameters(model):
    return {name: np.asarray(a) for name, a in weights.named_parameters(model).items()}


def test_each_epoch_is_a_permutation_and_can_start_anywhere():
    whole = list(islice(loop.epoch_order(5, 1, 0), 15))
    for epoch in range(3):
        assert sorted(whole[5 * epoch : 5 * epoch + 5]) == [(epoch, i) for i in range(5)]
    assert whole[:5] != [(0, i) for _, i in whole[5:10]]
    assert list(islice(loop.epoch_order(5, 1, 7), 8)) == whole[7:]
    assert list(islice(loop.epoch_order(5, 2, 0), 15)) != whole


@dataclass(frozen=True)
class CutColours(Colours):
    """Source whose clips were cut from six videos; those of one video are equal."""

    @property
    def items(self):
        return tuple(replace(item, source=f"video {i % 6}") for i, item in enumerate(super().items))


def test_accuracy_counts_source_videos(tmp_path, capsys):
    network = Network(make(), CLIP_SPEC, HEADS, "untrained")
    report_accuracy(network, CutColours(), tmp_path, 8, num_workers=0)
    clips, videos = (measure_accuracy(network, kind(), 8, num_workers=0)[0] for kind in (Colours, CutColours))
    assert (clips.n_clips, clips.n_videos, videos.n_clips, videos.n_videos) == (46, 46, 46, 6)
    assert clips.n_correct == videos.n_correct and clips.interval == wilson_ci(clips.n_correct, 46)
    low, high = videos.interval
    assert low < clips.interval[0] < clips.interval[1] < high
    with (tmp_path / "accuracy.csv").open() as file:
        row = next(csv.DictReader(file))
    assert (row["n_clips"], row["n_videos"], float(row["low"])) == ("46", "6", low)
    assert "accuracy (95 % CI over source videos)" in capsys.readouterr().out


@pytest.mark.slow
def test_it_learns(tmp_path):
    run(replace(CONFIG, steps=120, checkpoint_every=120), tmp_path)
    with (tmp_path / "metrics.csv").open() as file:
        last = list(csv.DictReader(file))[-1]
    assert float(last["accuracy:colour"]) == 1.0 and float(last["accuracy:bright"]) == 1.0
    assert float(last["loss"]) < 0.1
    text = draw_training_curves(tmp_path / "metrics.csv").read_text()
    assert "colour" in text and text.count("<polyline") == 3


@pytest.mark.slow
def test_a_run_interrupted_at_any_step_ends_like_an_uninterrupted_one(tmp_path, monkeypatch):
    trained = run(CONFIG, tmp_path / "unbroken")
    unbroken = parameters(trained.model)
    assert [read.item.name for read in trained.failures] == ["clip 10", "clip 21", "clip 32", "clip 43"]

    real = loop._batches

    def stopping(*args):
        for i, batch in enumerate(real(*args)):
            if i == 5:
                raise KeyboardInterrupt
            yield batch

    monkeypatch.setattr(loop, "_batches", stopping)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            run(CONFIG, tmp_path / "broken")
    monkeypatch.setattr(loop, "_batches", real)
    continued = parameters(run(CONFIG, tmp_path / "broken").model)
    for name, array in unbroken.items():
        np.testing.assert_array_equal(continued[name], array)
    metrics = (tmp_path / "unbroken" / "metrics.csv").read_bytes()
    assert (tmp_path / "broken" / "metrics.csv").read_bytes() == metrics
    assert metrics.count(b"\n") == 13


@pytest.mark.slow
def test_a_batch_has_each_clip_once(tmp_path, monkeypatch):
    shapes, original = [], loop._step
    monkeypatch.setattr(loop, "_step", lambda *args: shapes.append(args[5].shape[0]) or original(*args))
    config = replace(CONFIG, batch_size=2**16, steps=2, checkpoint_every=2)
    loop.train_network(make, Colours(9), CLIP_SPEC, config, tmp_path, num_workers=0)
    assert shapes == [9, 9]


def test_a_finished_run_is_only_loaded(tmp_path):
    first = parameters(run(CONFIG, tmp_path).model)
    again = parameters(train_network(make, Colours(), CLIP_SPEC, CONFIG, tmp_path, num_workers=0).model)
    assert all(np.array_equal(first[name], again[name]) for name in first)


@pytest.mark.slow
def test_a_non_finite_loss_names_its_step_and_the_last_good_checkpoint(tmp_path):
    run(replace(CONFIG, steps=4), tmp_path)
    with pytest.raises(DivergedError, match=r"the loss is nan at step \d+; the last good checkpoint is step 4"):
        run(replace(CONFIG, steps=60, warmup=0, learning_rate=1e30), tmp_path)


def test_a_clip_without_a_label_does_not_count():
    logits = jnp.array([[2.0, 0.0], [0.0, 3.0], [5.0, 0.0]])
    loss, right = loop._head_loss(logits, jnp.array([0, 0, -1]), 0.0)
    expected = np.mean([np.log(1 + np.exp(-2)), np.log(1 + np.exp(3))])
    assert float(loss) == pytest.approx(expected, abs=1e-6) and float(right) == 0.5
    loss, right = loop._head_loss(logits, jnp.array([-1, -1, -1]), 0.1)
    assert (float(loss), float(right)) == (0.0, 0.0)


def test_label_smoothing_bounds_the_margin():
    loss = jax.jit(lambda margin: loop._head_loss(jnp.stack([margin, 0 * margin], -1)[None], jnp.array([0]), 0.1)[0])
    margins = jnp.linspace(0.0, 8.0, 801)
    best = float(margins[jnp.argmin(jax.vmap(loss)(margins))])
    assert best == pytest.approx(np.log(0.95 / 0.05), abs=0.01)  # a tenth spread over two classes


def test_augmentation_only_moves_pixels():
    video = np.arange(4 * 2 * 4 * 5 * 3).reshape(4, 2, 4, 5, 3).astype(np.uint8)
    key = jax.random.key(1)
    shifted = np.asarray(loop.augment(jnp.asarray(video), "torus", key))
    for clip, new in zip(video, shifted):
        assert any((np.roll(clip, (y, x), (1, 2)) == new).all() for y in range(4) for x in range(5))
    assert (shifted != video).any()
    flipped = np.asarray(loop.augment(jnp.asarray(video), "flip", key))
    mirrored = [(new == clip[:, :, ::-1]).all() for clip, new in zip(video, flipped)]
    same = [(new == clip).all() for clip, new in zip(video, flipped)]
    assert all(a != b for a, b in zip(mirrored, same)) and any(mirrored) and any(same)
    assert loop.augment(jnp.asarray(video), "none", key) is not None


@pytest.mark.slow
def test_a_share_of_clips_is_frozen_or_shuffled():
    video = jnp.arange(400 * 6).reshape(400, 6, 1, 1, 1).astype(jnp.uint8) * jnp.ones((1, 1, 2, 2, 3), jnp.uint8)
    changed, is_ablated = loop.ablate_time(video, 0.25, jax.random.key(0))
    before, after = np.asarray(video)[..., 0, 0, 0], np.asarray(changed)[..., 0, 0, 0]
    is_ablated = np.asarray(is_ablated)
    assert 60 < is_ablated.sum() < 140
    np.testing.assert_array_equal(after[~is_ablated], before[~is_ablated])
    frozen = (after == after[:, :1]).all(1)
    shuffled = (np.sort(after, 1) == np.sort(before, 1)).all(1)
    assert (frozen | shuffled)[is_ablated].all() and 20 < frozen[is_ablated].sum() < is_ablated.sum() - 20
    assert all(set(a) <= set(b) for a, b in zip(after, before))


@pytest.mark.slow
def test_temporal_heads_ignore_static_clips(tmp_path):
    run(replace(CONFIG, static_fraction=1.0, static_heads=("bright",)), tmp_path)
    with (tmp_path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["accuracy:colour"] for row in rows} == {"0.0"}
    assert any(float(row["accuracy:bright"]) > 0 for row in rows)


def test_one_error_lists_all_invalid_settings():
    with pytest.raises(ValueError, match=r"steps: .*learning_rate: .*warmup: expected at most the 0 steps"):
        TrainConfig(steps=0, warmup=5, learning_rate=0.0)


def test_training_needs_labels():
    class Unlabelled(Colours):
        heads = NO_HEADS

    with pytest.raises(ValueError, match="colours has no labels to train on"):
        loop.require_heads(Unlabelled())

    class OneClass(Colours):
        heads = ONE_CLASS

    with pytest.raises(ValueError, match="only one class for colour"):
        loop.require_heads(OneClass())


def test_fine_tuning_starts_with_the_old_body_and_a_new_head(tmp_path):
    old = {name: a + 1 for name, a in weights.named_parameters(make()).items()}
    old["head.bias"] = jnp.zeros(99)
    start = loop.replace_head(old, make)
    fresh = weights.named_parameters(make())
    np.testing.assert_array_equal(start["body.kernel"], old["body.kernel"])
    np.testing.assert_array_equal(start["head.kernel"], fresh["head.kernel"])
    model = run(replace(CONFIG, steps=1, warmup=1), tmp_path, initial=start).model  # at a learning rate of 0
    np.testing.assert_array_equal(parameters(model)["body.kernel"], old["body.kernel"])


@pytest.mark.slow
def test_two_devices_train_like_one(tmp_path):
    program = (
        "import jax, numpy as np, sys; from pathlib import Path\n"
        "from tests.training.test_loop import run, CONFIG, parameters\n"
        "model = run(CONFIG, Path(sys.argv[1] + '_run')).model\n"
        "np.savez(sys.argv[1], devices=jax.device_count(), **parameters(model))\n"
    )
    arrays_by_count = []
    for devices in (1, 2):
        out = tmp_path / str(devices)
        command = [sys.executable, "-c", program, str(out)]
        subprocess.run(command, env=device_environment(devices), check=True, timeout=300)
        arrays_by_count.append(dict(np.load(f"{out}.npz")))
    assert [int(arrays.pop("devices")) for arrays in arrays_by_count] == [1, 2]
    for name, array in arrays_by_count[0].items():
        np.testing.assert_allclose(
            arrays_by_count[1][name], array, atol=1e-5
        )  # sums in a different order in 12 steps of Adam


@pytest.mark.slow
def test_a_killed_command_ends_like_an_uninterrupted_one(tmp_path):
    common = ["--task=train", "--model=small_cnn", "--videos=worlds:small:480:0", "--eval_videos=worlds:small:40:1"]
    common += ["--steps=30", "--batch_size=16", "--checkpoint_every=5", "--num_workers=1", "--learning_rate=1e-3"]
    folders = tmp_path / "unbroken", tmp_path / "killed"
    commands = [[*common, f"--run={folder}"] for folder in folders]
    assert run_cli(*commands[0])[0] == 0
    process = subprocess.Popen(
        [sys.executable, "main.py", *commands[1]], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while not (folders[1] / "checkpoints" / "10").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert not (folders[1] / "model.safetensors").exists()
    assert run_cli(*commands[1])[0] == 0
    for name in ("metrics.csv", "accuracy.csv", "model.safetensors"):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes(), name
    code, _, errors = run_cli(*commands[1], "--seed=1")
    stop_cli_server()
    assert code == 1 and "holds a different run (seed was 0, is 1)" in errors


def test_clips_are_decoded_once_as_far_as_they_fit_into_memory():
    source, spec = open_source("worlds:small:10:1"), ClipSpec(frames=8, size=32)
    positions = list(islice(loop.epoch_order(10, 0, 4), 36))  # from the middle of an epoch
    expected = [read.clip.video for read in stream(source, spec, positions=positions, num_workers=0) if read.clip]
    for capacity, n_reads in (
        (99, 10),
        (4, 4 + sum(i not in {i for _, i in positions[:4]} for _, i in positions)),
        (0, 36),
    ):
        counted = CountedSource.of(source)
        reads = stream_epochs(
            counted, spec, SamplingConfig(), positions, num_workers=0, max_bytes=capacity * 8 * 32 * 32 * 3
        )
        videos = [read.clip.video for read in reads if read.clip]
        np.testing.assert_array_equal(videos, expected)
        assert len(counted.items_read) == n_reads
    moving = CountedSource.of(source)
    jittered = SamplingConfig(random_start=1)
    assert len(list(stream_epochs(moving, spec, jittered, positions, num_workers=0, max_bytes=10**9))) == 36
    assert len(moving.items_read) == 36


@dataclass
class CountedSource:
    """A source that lists the items that were read."""

    spec: str
    heads: dict[str, tuple[str, ...]]
    items: Sequence[SourceItem]
    identity: str
    read_item: Callable[[int, ClipSpec, SamplingConfig], Clip]
    items_read: list[int] = field(default_factory=list)

    @classmethod
    def of(cls, source):
        return cls(source.spec, source.heads, source.items, source.identity, source.read)

    def read(self, i, clip_spec, sampling):
        self.items_read.append(i)
        return self.read_item(i, clip_spec, sampling)
