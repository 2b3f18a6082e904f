"""Tests of the benchmarks: timing, ratios, operation counts and tables."""

import json
import mmap
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import decode, docs_images, evaluation_tables, seed_variation, tables, timing, write_tables
from benchmarks.torch_peer import TorchPeer
from vtcav_jax import models, tap
from vtcav_jax.data import open_source
from vtcav_jax.runs.evaluation_rows import MEAN_SCORE, MethodScoreRow


def test_a_timing_is_that_of_the_call_without_warm_ups():
    calls = []

    def sleepy():
        time.sleep(0.05 if len(calls) < 2 else 0.002)
        calls.append(1)

    seconds = timing.time_in_turn({"sleepy": sleepy}, repeats=5, warmups=2)["sleepy"]
    assert len(seconds) == 5 and len(calls) == 7
    result = timing.Timing.from_seconds(seconds)
    assert 0.002 <= result.p10_s <= result.median_s <= result.p90_s
    assert result.median_s < 0.05


def test_functions_take_turns():
    order = []
    timing.time_in_turn({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, repeats=2, warmups=1)
    assert order == ["a", "b"] * 3


def test_percentiles_and_ratio():
    result = timing.Timing.from_seconds([float(i) for i in range(11)])
    assert (result.p10_s, result.median_s, result.p90_s) == (1, 5, 9)
    assert timing.ratio([2.0, 9.0, 4.0], [1.0, 3.0, 2.0]) == 2


def test_measure_compiles_and_waits_for_the_result():
    result = timing.measure_alone(lambda a: jnp.sin(a) @ a, jnp.ones((64, 64)), repeats=3)
    assert result.compile_s > 0 and result.median_s > 0 and result.repeats == 3
    assert result.temp_mib == pytest.approx(64 * 64 * 4 / 2**20, rel=1)


@pytest.mark.slow
def test_operations_are_counted_outside_of_loops():
    """Two products of the MLP and four of the attention, per token; elementwise work adds a little."""
    model = models.make("video_swin_tiny")
    counted = timing.gflop(lambda m, v: m(v), model, np.zeros((2, 8, 32, 32, 3), np.float32))
    tokens, c, n = 2 * 4 * 8 * 8, 48, 64
    by_hand = tokens * 2 * 96 * c  # patches
    by_hand += 2 * tokens * (24 * c * c + 4 * n * c)
    by_hand += tokens // 4 * 2 * (4 * c) * (2 * c)
    by_hand += 2 * (tokens // 4) * (24 * (2 * c) ** 2 + 4 * n * 2 * c)
    assert 1 < counted * 1e9 / by_hand < 1.15


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["video_swin_tiny", "videomae_tiny"])
def test_the_torch_peer_computes_our_logits_and_gradients(preset):
    spec = models.get_preset(preset).clip_spec
    video = np.random.default_rng(0).normal(size=(2, *spec.shape)).astype(np.float32)
    peer = TorchPeer(preset, video)
    stages = tap.stages_of(peer.model)
    tap_result = tap.activations_and_gradients(peer.model, video, [1, 1], stages)
    expected = peer.gradients(stages, 1)
    assert timing.largest_difference(tap_result.logits, peer.eager()) < 1e-5
    assert timing.largest_difference(jax.jit(peer.through_torchax())(video), peer.eager()) < 1e-5
    for stage in stages:
        assert tap_result.gradients[stage].shape == expected[stage].shape
        assert timing.largest_difference(tap_result.gradients[stage], expected[stage]) < 1e-4


def test_slow_calls_are_repeated_less_often():
    assert timing.affordable_repeats(lambda: time.sleep(0.01), 20, seconds=0.105) in range(5, 11)
    assert timing.affordable_repeats(lambda: time.sleep(0.01), 3) == 3


def test_tables_hold_the_results(tmp_path, monkeypatch):
    row = {"preset": "p", "clip": [16, 224, 224], "batch": 2, "dtype": "float32", "gflop": 88.5, "peak_gflops": 200}
    row |= timing.as_row(timing.Timing(3.21, 0.5, 0.4, 1.25, 20, 100.0))
    row |= {"share_of_peak": 0.44, "torch_ratio": 2.1}
    monkeypatch.setattr(timing, "RESULTS", tmp_path)
    monkeypatch.setattr(write_tables, "RESULTS", tmp_path)
    path = timing.write_results("forward", [row])
    (line,) = path.read_text().splitlines()
    assert json.loads(line)["versions"]["jax"] and json.loads(line)["median_s"] == 0.5
    text = write_tables.fill_tables("a <!-- table: forward --> old <!-- end --> b")
    assert text.startswith("a ") and text.endswith(" b") and "old" not in text
    for cell in ("500 ms (400 ms to 1.25 s)", "4", "3.21 s", "44 % of 200 GFLOP/s", "2.10x", "not measured"):
        assert f"| {cell} |" in text
    assert write_tables.fill_tables(text) == text


def test_scores_vary_between_networks():
    def score(network: str, value: float, stage: str = "video") -> MethodScoreRow:
        return MethodScoreRow("m", stage, network, "all", MEAN_SCORE, value, value - 0.05, value + 0.05, 200, 3, 0.1)

    rows = [score("a", 0.5), score("b", 0.53), score("c", 0.62), score("a", 0.4, "early"), score("b", 0.9, "early")]
    (result,) = seed_variation.variation_between_networks(rows)  # at the best stage on the first network
    assert result["mean"] == pytest.approx(0.55) and result["sd"] == pytest.approx(np.std([0.5, 0.53, 0.62], ddof=1))
    assert (result["outside"], result["pairs"], result["half_width"]) == (4, 6, pytest.approx(0.05))
    assert "| m | video | 3 | 0.55 | 0.062 | 0.050 | 4 of 6 |" in evaluation_tables.seed_variation_table([result])
    with pytest.raises(ValueError, match="at least 2 networks, got a"):
        seed_variation.variation_between_networks(rows[:1])


def test_waiting_share():
    def slow():
        while True:
            time.sleep(0.02)
            yield np.zeros((2, 2), np.uint8)

    def quick():
        while True:
            yield np.zeros((2, 2), np.uint8)

    seen = []
    assert decode.waiting_share(slow(), 8, 2, lambda video: seen.append(video.shape)) > 0.9
    assert seen == [(2, 2, 2)] * 4
    assert decode.waiting_share(quick(), 8, 1, lambda _: time.sleep(0.02)) < 0.1
    assert decode.seconds_of(slow(), 5) >= 0.1


def test_peak_memory():
    # mmap allocates new pages; an array could reuse pages held before
    with decode.Memory(decode._resident(decode.psutil.Process())) as memory, mmap.mmap(-1, 2**26) as held:
        held[:: mmap.PAGESIZE] = b"x" * (2**26 // mmap.PAGESIZE)
        time.sleep(0.2)
    assert 50 < memory.process_peak < 200
    children = decode.psutil.Process().children()  # such as the server of other tests' commands
    assert (memory.children_peak == 0) == (not children)


def test_both_readers_of_the_benchmark_return_the_same_clip(tmp_path, monkeypatch):
    monkeypatch.setattr(decode, "FRAMES", 70)
    decode.write_video(tmp_path / "0.mp4", (64, 96), 0)
    source, geometry = open_source(tmp_path), models.get_preset(decode.PRESET).clip_spec
    clip = geometry.normalise(next(decode.stream_clips(source, geometry, 0)))
    assert timing.largest_difference(clip, next(decode.decode_everything(source, geometry))) < 1e-6


def test_the_table_of_decoding():
    row = {"video": "320 x 240", "reader": "ours, 1 worker", "clips_per_s": 12.5, "slowest_clips_per_s": 11.0}
    row |= {"memory_mib": 40, "workers_mib": 90, "waits": 0.07, "model_waits": 0.5, "times_all_frames": 1.8}
    text = tables.decode_table([row, row | {"difference": 1e-7}])
    for cell in ("12.5 (11.0)", "1.80x", "40 MiB", "90 MiB", "7 %", "50 %", "1e-07"):
        assert f"| {cell} |" in text


def test_the_table_of_programs_compiled_ahead_of_time():
    row = {"program": "forward", "network": "p", "target": "v5e", "version": "before", "error": None}
    row |= {"operations": 2 * 10**11, "memory_bytes": 2**30, "traffic_bytes": 8 * 10**9, "accessed_bytes": 17 * 10**9}
    row |= {"bound_seconds": 0.01, "utilisation_bound": 0.09}
    after = row | {"version": "after", "traffic_bytes": 2 * 10**9, "bound_seconds": 0.0025}
    rejected = row | {"target": "v6e", "version": "after", "error": "out of memory"}
    text = tables.preflight_table([after, row, rejected])
    for cell in ("200 G", "8 GB → 2 GB", "10 ms → 2.5 ms", "9%", "does not compile: out of memory"):
        assert f"| {cell} |" in text


def test_the_speed_chart_shows_the_stored_measurements():
    text = (docs_images.IMAGES / "speed.svg").read_text(encoding="utf-8")
    for name, ratio in docs_images.speed_ratios():
        assert name in text and f"{ratio:.3g}×" in text, name
