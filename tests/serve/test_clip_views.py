"""One clip: its film, map and curves are those of the run, and what is computed anew is what the library computes."""

import io
import json
import subprocess
import sys
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import vtcav_jax as vtcav
from tests.support.cli_runner import run_cli
from tests.support.served_runs import NETWORK, STEP_LENGTH, STRONGEST, vector
from vtcav_jax.attribution.videos.map_store import load_maps
from vtcav_jax.data import SamplingConfig
from vtcav_jax.data.encode import encode_lossless_mp4
from vtcav_jax.serve.byte_cache import ByteCache
from vtcav_jax.serve.clip_views import ClipView
from vtcav_jax.serve.workspace import open_workspace
from vtcav_jax.tcav.features.pooling import broadcast_vector
from vtcav_jax.tcav.vector_file import load_vectors

TARGET, STAGE, CONCEPT = STRONGEST
CLIP = "small_5_000003"
PLACE = {"run": "run", "task": "tcav", "clip": CLIP}
CHOICE = {"target": TARGET, "stage": STAGE, "vector": vector(CONCEPT)}


@pytest.fixture(scope="module")
def network():
    return vtcav.load(NETWORK)


@pytest.fixture(scope="module")
def frames(made, network):
    return vtcav.open_source(made.source).read(3, network.clip_spec, SamplingConfig(normalise=False)).video[0]


def get_tiles(client, name, **query):
    """Return the frames of a picture and its layout."""
    answer = client.get(f"/api/{name}", params=PLACE | query)
    assert answer.status_code == 200, answer.text
    layout = json.loads(answer.headers["x-film"])
    picture = np.asarray(Image.open(io.BytesIO(answer.content)))
    h, w = layout["height"], layout["width"]
    places = [divmod(i, layout["columns"]) for i in range(layout["frames"])]
    return np.stack([picture[y * h : (y + 1) * h, x * w : (x + 1) * w] for y, x in places]), layout


def test_the_film_has_the_frames_that_the_network_reads(client, frames):
    tiles, layout = get_tiles(client, "film")
    assert np.array_equal(tiles, frames)
    assert layout["times"] == pytest.approx(np.arange(8) / 25)
    thumbnail, _ = get_tiles(client, "thumbnail")
    assert np.array_equal(thumbnail[0], frames[4])


def test_a_film_is_decoded_once_however_many_ask(made):
    from vtcav_jax.serve.films import ClipSampling, FilmLibrary

    library, spec = FilmLibrary(), vtcav.load(NETWORK).clip_spec
    threads = [
        threading.Thread(target=library.clip, args=(made.source, name, 0, spec, ClipSampling()))
        for name in (CLIP, "small_5_000004")
        for _ in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert library.n_decoded == 2


def test_the_overlay_is_the_stored_map(client, made):
    map_name = {"mapTarget": TARGET, "map": "saliency@video"}
    tiles, layout = get_tiles(client, "overlay", **map_name)
    (path,) = (made.folder / "maps").glob(f"*{CLIP}.npz")
    (stored,) = (e.maps[0] for e in load_maps(path) if (e.target, e.method) == (TARGET, "saliency"))
    assert layout["frames"] == 8 and tiles.shape == (8, 32, 32, 4)
    opacity = tiles[..., 3].astype(float)
    below = np.abs(stored) < np.quantile(np.abs(stored), 0.99)
    assert np.corrcoef(opacity[below], np.sqrt(np.abs(stored[below])))[0, 1] > 0.999
    motion, _ = get_tiles(client, "overlay", part_of_map="motion", **map_name)
    is_empty = motion[..., 3] == 0
    assert 0.05 < is_empty.mean() < 0.95 and np.array_equal(motion[~is_empty], tiles[~is_empty])


def test_curves_are_those_of_the_run(client, made):
    answer = client.get("/api/curves", params=PLACE | CHOICE | {"map": "gradcam@convs.2"}).json()
    curves = {curve["kind"]: curve for curve in answer["curves"]}
    total = made.effects[0, 1, 1][3]
    assert sum(curves["effect"]["values"]) == pytest.approx(total, rel=1e-5)
    assert curves["effect"]["times"] == pytest.approx([0.02, 0.1, 0.18, 0.26])
    (path,) = (made.folder / "maps").glob(f"*{CLIP}.npz")
    (stored,) = (e.maps[0] for e in load_maps(path) if (e.target, e.method) == (TARGET, "gradcam"))
    values = [curve["values"] for curve in answer["curves"] if curve["kind"] == "map"]
    assert values[0] == pytest.approx(np.maximum(stored, 0).sum((1, 2)), rel=1e-4)
    assert values[1] == pytest.approx(np.minimum(stored, 0).sum((1, 2)), rel=1e-4)
    motion = [curve["values"] for curve in answer["curves"] if curve["kind"] == "motion"]
    assert all(0 <= m <= v + 1e-6 for m, v in zip(motion[0], values[0]))
    assert answer["map"] | {"score": 3.0, "grid": [4, 8, 8], "hasMotion": True, "signed": True} == answer["map"]


def test_facts_of_a_clip(client, made):
    facts = client.get("/api/facts", params=PLACE | CHOICE).json()
    assert facts["stepLength"] == pytest.approx(STEP_LENGTH, rel=1e-6)
    assert dict(map(tuple, facts["effects"]))[vector(CONCEPT)] == pytest.approx(made.effects[0, 1, 1][3])
    assert {"target": TARGET, "map": "gradcam@convs.2"} in facts["maps"] and 0 < facts["probability"] < 1


def test_steering_gives_the_answer_of_the_network_with_the_moved_activation(client, made, network, frames, workspace):
    answer = client.post("/api/steer", json=PLACE | CHOICE | {"steps": [-2, 1.5]}).json()
    bundle = load_vectors(made.folder)
    video = network.clip_spec.normalise(jnp.asarray(frames[None]))
    direction = broadcast_vector(bundle.arrays[f"{STAGE}|{vector(CONCEPT)}"], (4, 8, 8, 64), "space")
    head = network.head_slices["direction"]
    for point in (answer["unsteered"], *answer["steered"]):
        eps = np.float32(point["step"] * STEP_LENGTH)
        logits = np.asarray(vtcav.tap.steered_logits(network.model, video, STAGE, direction[None], eps))[0, head]
        assert list(point["probabilities"].values()) == pytest.approx(np.asarray(jax.nn.softmax(logits)), abs=1e-5)
        assert point["answer"] == network.labels[head][int(logits.argmax())]
        assert point["score"] == pytest.approx(logits[0] - logits[1:].mean(), abs=1e-3)
    assert [point["step"] for point in answer["steered"]] == [-2, 1.5]
    client.post("/api/steer", json=PLACE | CHOICE | {"steps": [0.5]})
    assert workspace.shelf.n_loaded == 1  # the network is loaded once


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": []}, "expected 1 to 21 steps"),
        ({"steps": [1e9]}, "from -20 to 20"),
        ({"steps": [1], "vector": "nothing/dynamic/random"}, "no vector nothing/dynamic/random"),
        ({"steps": [1], "task": "attribute"}, "attribute has no concept vectors"),
        ({"steps": "1"}, "expected steps as a list"),
    ],
)
def test_impossible_steps_are_refused(client, change, message):
    answer = client.post("/api/steer", json=PLACE | CHOICE | change)
    assert answer.status_code == 400 and message in answer.json()["error"]


def wait_for_map(client, **request):
    answer = client.post("/api/maps", json=PLACE | request).json()
    deadline = time.monotonic() + 120
    while not answer["done"] and time.monotonic() < deadline:
        answer = client.get("/api/job", params={"job": answer["job"]}).json() | {"job": answer["job"]}
    return answer


@pytest.mark.slow
@pytest.mark.parametrize(("method", "stage"), [("gradient_x_input", ""), ("layercam", "convs.1"), ("deep_taylor", "")])
def test_a_requested_map_is_that_of_the_library(client, network, frames, method, stage):
    before = client.get("/api/overlay", params=PLACE | {"mapTarget": TARGET, "map": method})
    assert before.status_code == 404 and "not computed" in before.json()["error"]
    answer = wait_for_map(client, mapTarget=TARGET, method=method, mapStage=stage)
    options = {}
    if method == "deep_taylor":
        options["bounds"] = vtcav.attribution.pixel_bounds(network.clip_spec)
    expected = vtcav.attribute(network, frames[None], TARGET, method, stage or None, **options)
    assert answer["map"] == f"{method}@{expected.stage}"
    curves = client.get("/api/curves", params=PLACE | CHOICE | {"map": answer["map"]}).json()
    values = next(curve["values"] for curve in curves["curves"] if curve["kind"] == "map")
    assert values == pytest.approx(np.maximum(expected.map[0], 0).sum((1, 2)), rel=1e-3, abs=1e-5)
    get_tiles(client, "overlay", mapTarget=TARGET, map=answer["map"])
    again = client.post("/api/maps", json=PLACE | {"mapTarget": TARGET, "method": method, "mapStage": stage}).json()
    assert again["job"] == answer["job"]


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"method": "gradcam", "mapStage": "layer9"}, "no stage named 'layer9'"),
        ({"method": "gradcamm"}, "did you mean gradcam"),
        ({"method": "gradcam", "mapTarget": "direction:lef"}, "did you mean direction:left"),
        ({"method": "expected_gradients"}, "needs clips of other videos"),
        ({"method": "rollout"}, "attention"),
    ],
)
def test_impossible_maps_are_refused_with_the_reason(client, request_, message):
    assert message in wait_for_map(client, **{"mapTarget": TARGET} | request_)["error"]


def test_maps_of_a_video_that_changed_are_refused(tmp_path, network):
    videos = tmp_path / "videos"
    videos.mkdir()
    for name, shade in (("a", 40), ("b", 200)):
        (videos / f"{name}.mp4").write_bytes(encode_lossless_mp4(np.full((12, 32, 32, 3), shade, np.uint8)))
    flags = ["--model=worlds_cnn", f"--videos={videos}", "--targets=direction:left", "--methods=saliency"]
    code, _, err = run_cli("attribute", *flags, "--animations=none", "--num_workers=0", f"--run={tmp_path / 'run'}")
    assert code == 0, err
    workspace = open_workspace([tmp_path / "run"])
    assert workspace.first_view()["task"] == "attribute"

    def view():
        return ClipView(workspace, workspace.run("run"), "attribute", "a.mp4", 0)

    assert view().overlay("direction:left", "saliency@video", motion_only=False).n_frames == 8
    (videos / "a.mp4").write_bytes((videos / "b.mp4").read_bytes())
    workspace = open_workspace([tmp_path / "run"])
    with pytest.raises(ValueError, match=r"a\.mp4 has changed since its maps were computed"):
        view().overlay("direction:left", "saliency@video", motion_only=False)


def test_clips_that_slide_over_a_video_are_read_where_they_start(tmp_path, network):
    shades = np.arange(20, 60, dtype=np.uint8)
    (tmp_path / "long.mp4").write_bytes(encode_lossless_mp4(np.tile(shades[:, None, None, None], (1, 32, 32, 3))))
    flags = ["--model=worlds_cnn", f"--videos={tmp_path / 'long.mp4'}", "--targets=direction:left"]
    more = ["--methods=saliency", "--slide_over_video", "--animations=none", "--num_workers=0"]
    code, _, err = run_cli("attribute", *flags, *more, f"--run={tmp_path / 'run'}")
    assert code == 0, err
    workspace = open_workspace([tmp_path / "run"])
    run = workspace.run("run")
    (facts,) = workspace.describe()["runs"][0]["tasks"].values()
    assert facts["notice"] == "" and not facts["knowsAnswers"]
    with np.load(next((tmp_path / "run" / "maps").glob("*.npz"))) as stored:
        starts = stored["frames"][:, 0].tolist()
    assert len(starts) == 5 and starts[:3] == [0, 8, 16]
    for part, start in enumerate(starts):
        view = ClipView(workspace, run, "attribute", "long.mp4", part)
        assert view.read().frames[:, 0, 0, 0].tolist() == shades[start : start + 8].tolist()
        assert view.film().times[0] == pytest.approx(start / 25)
        program = view.reproduction("direction:left", "", "", "direction:left", "saliency@video", 0.0)["python"]
        assert (
            f"start={start}" in program
            and "--slide_over_video"
            in view.reproduction("direction:left", "", "", "direction:left", "saliency@video", 0.0)["command"]
        )


def test_methods_have_their_costs(client):
    answer = client.get("/api/methods", params={"run": "run", "task": "tcav"}).json()
    costs = {entry["method"]: entry["passes"] for entry in answer["methods"]}
    assert costs["gradcam"] == 3 and "expected_gradients" not in costs and max(costs.values()) <= 500
    assert answer["stages"] == ["convs.0", "convs.1", "convs.2", "pool"] and TARGET in answer["targets"]


def test_a_clip_that_cannot_be_read_is_an_error_of_that_clip(tmp_path, client, workspace, monkeypatch):
    from vtcav_jax.data.decode import VideoError

    def fail(*_):
        raise VideoError("clip.mp4 is damaged")

    monkeypatch.setattr(type(vtcav.open_source("worlds:small:60:5")), "read", fail)
    answer = client.get("/api/film", params=PLACE | {"clip": "small_5_000059"})
    assert answer.status_code == 400 and answer.json() == {"error": "clip.mp4 is damaged"}
    assert client.get("/api/clips", params={"run": "run", "task": "tcav", **CHOICE}).status_code == 200


@pytest.mark.slow
@pytest.mark.parametrize(
    "shown", [{"map": "gradcam@convs.2", "step": 1.5}, {"map": "saliency@video"}, {"step": -1}, {}]
)
def test_the_python_of_a_view_runs_and_gives_what_it_shows(client, tmp_path, shown):
    recipes = client.get("/api/reproduce", params=PLACE | CHOICE | shown).json()
    run = subprocess.run(
        [sys.executable, "-c", recipes["python"]], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stderr
    assert (tmp_path / "map.webp").exists() == ("map" in shown)
    if "step" in shown:
        steered = client.post("/api/steer", json=PLACE | CHOICE | {"steps": [shown["step"]]}).json()["steered"][0]
        printed = json.loads(run.stdout.replace("'", '"'))
        assert printed == pytest.approx(steered["probabilities"], abs=1e-5)


def test_commands_of_a_view_are_commands(client):
    from vtcav_jax.cli.arguments import parse_arguments
    from vtcav_jax.cli.main import name_task, parse_command
    from vtcav_jax.cli.tasks import TASKS

    for shown in ({"map": "gradcam@convs.2"}, {"map": "saliency@video"}, {}):
        recipes = client.get("/api/reproduce", params=PLACE | CHOICE | shown).json()
        for command in (recipes["command"], recipes["page"], recipes["run"]):
            assert command.startswith("vtcav ")
            if "flagfile" in command:
                continue  # of a made run, which has not all flags
            task, values = parse_command(name_task(command.split()[1:]))
            parse_arguments(TASKS[task].argument_class, values, task)


def test_the_cache_keeps_what_was_used_last_within_its_bytes():
    cache = ByteCache[bytes](10, len)
    for key in "abc":
        assert cache.get_or_compute(key, lambda: b"1234") == b"1234"
    assert cache.get("a") is None and cache.get("b") is not None and cache.n_bytes == 8
    cache.put("d", b"12345")
    assert cache.get("c") is None and cache.get("b") is not None and cache.n_bytes == 9
    with pytest.raises(ZeroDivisionError):
        cache.get_or_compute("e", lambda: b"" * (1 // 0))
    assert cache.get_or_compute("e", lambda: b"1") == b"1"


@pytest.mark.slow
def test_results_of_random_weights_are_marked_and_computed_with_the_same_weights(tmp_path):
    flags = ["--model=video_swin_tiny", "--random_weights", "--seed=3", "--videos=worlds:small:2:5", "--targets=label"]
    more = ["--methods=saliency", "--animations=none", "--num_workers=0", f"--run={tmp_path / 'run'}"]
    code, _, err = run_cli("attribute", *flags, *more)
    assert code == 0, err
    workspace = open_workspace([tmp_path / "run"])
    (facts,) = workspace.describe()["runs"][0]["tasks"].values()
    assert "weights are random" in facts["notice"]
    run = workspace.run("run")
    network = workspace.shelf.network(run.network("attribute"))  # raises for other weights than those of the run
    view = ClipView(workspace, run, "attribute", "small_5_000001", 0)
    stored = view.find_map("label", "saliency@video")
    expected = vtcav.attribute(network, view.read().frames[None], "label", "saliency")
    assert stored is not None and np.allclose(stored.map, expected.map[0], rtol=1e-3, atol=1e-6)
    recipes = view.reproduction("label", "", "", "label", "saliency@video", 0.0)
    assert "--random_weights" in recipes["command"] and "random_network('video_swin_tiny', seed=3)" in recipes["python"]
    workspace.session.close()
