"""The command line as a user types it."""

import csv
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import vtcav_jax
from tests.support.cli_runner import ROOT, run_cli, stop_cli_server
from vtcav_jax import models
from vtcav_jax.cli import help_text
from vtcav_jax.cli.arguments import CommonArguments, flag_specs, parse_arguments
from vtcav_jax.cli.main import parse_command
from vtcav_jax.cli.pipeline import run_pipeline
from vtcav_jax.cli.tasks import TASK_GROUPS, TASKS
from vtcav_jax.data.world_export import write_video
from vtcav_jax.tap import stages_of

ATTRIBUTE = ("attribute", "--model=worlds_cnn", "--videos=worlds:small:1", "--run=RUN")
PREDICT = ("predict", "--model=worlds_cnn", "--videos=worlds:small:1")
MINE_LEFT = ("mine_concepts", "--videos=DIR", "--model=worlds_cnn", "--concepts=left=@direction:left")
TCAV = ("--model=worlds_swin", "--targets=ring", "--target_videos=worlds:small:9", "--concept_dir=x", "--run=x")
MOTION = ("motion", "--model=worlds_swin", "--videos=worlds:small:1", "--run=x")
EXPERIMENT = [
    *("--videos=worlds:small:300:0", "--concepts=left=@direction:left,ring=@shape:ring", "--model=worlds_swin"),
    *("--targets=direction:left", "--target_videos=worlds:small:60:5", "--run=x"),
]


@pytest.fixture(scope="module", autouse=True)
def _ends():
    yield
    stop_cli_server()


def main(*arguments, code=0):
    ended_with, out, err = run_cli(*arguments)
    assert ended_with == code, err
    assert "Traceback" not in err
    return out if code == 0 else out + err


@pytest.mark.slow
def test_stages_of_a_large_network():
    text = main("--task=inspect", "--model=video_swin_b_k400")
    assert "88,048,984 parameters, 400 classes" in text
    rows = {line.split()[0]: line for line in text.splitlines()[4:]}
    model, _ = models.abstract_model("video_swin_b_k400")
    assert tuple(rows) == stages_of(model)
    assert re.search(r"16 x 14 x 14 x 512 +1,605,632 +612.50 MiB", rows["layers.2"])


@pytest.mark.slow
def test_predict_writes_what_it_prints(tmp_path):
    clips = np.random.default_rng(0).integers(0, 256, (3, 8, 32, 32, 3), dtype=np.uint8)
    np.save(tmp_path / "clips.npy", clips)
    geometry = models.PRESETS["video_swin_tiny"].clip_spec
    np.save(tmp_path / "floats.npy", geometry.normalise(clips))
    common = ["--task=predict", "--model=video_swin_tiny", "--random_weights", "--batch_size=2"]
    text = main(*common, f"--clips_file={tmp_path / 'clips.npy'}", f"--out={tmp_path / 'top.csv'}")
    with open(tmp_path / "top.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert [line.split() for line in text.splitlines()] == rows
    assert len(rows) == 1 + 3 * 4
    for clip in range(3):
        assert sum(float(row[5]) for row in rows[1:] if row[0] == str(clip)) == pytest.approx(1, abs=1e-3)
    assert main(*common, f"--clips_file={tmp_path / 'floats.npy'}") == text


@pytest.mark.slow
def test_a_flagfile_is_a_command():
    """In a process that has imported nothing, as a user starts it."""
    command = [sys.executable, "main.py", "--flagfile=flagfiles/inspect.flags"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0 and "layers.0.downsample" in run.stdout and "Traceback" not in run.stderr


@pytest.mark.parametrize("path", sorted(Path(ROOT, "flagfiles").rglob("*.flags")), ids=lambda path: path.stem)
def test_flagfiles_hold_flags_of_their_task(path):
    task, values = parse_command([f"--flagfile={path}"])
    parse_arguments(TASKS[task].argument_class, values, task)


def test_there_is_a_flagfile_for_each_task():
    first = [path.read_text().partition("--task=")[2].split()[0] for path in Path(ROOT, "flagfiles").rglob("*.flags")]
    assert set(first) == set(TASKS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--task=inspect", "--model=video_swin_b_k40"],
            "no network named 'video_swin_b_k40' (did you mean video_swin_b_k400",
        ),
        (["inspec", "--model=x"], "no task named 'inspec' (did you mean inspect?)"),
        (["--task=inspect"], "expected --model=NETWORK or --detector=FILE"),
        (["--task=inspect", "--modell=x"], "Did you mean: model"),
        (["inspect", "--detector=x.pt", "--target=v5e"], "--target: expected --model=NETWORK to compile"),
        (["inspect", "--model=worlds_cnn", "--batch=4"], "--batch: needs --target=CHIP; add it, or remove this flag"),
        (["inspect", "--model=worlds_cnn", "--target=h100", "--stages=layer9"], "--stages: no stage named 'layer9'"),
        (["inspect", "--model=video_swin_tiny", "extra"], "unexpected argument: extra; after"),
        (["--model=video_swin_tiny"], "no task is given"),
        (["--task=predict", "--model=video_swin_tiny", "--clips_file=CLIPS"], "a network without weights"),
        (["--task=predict", "--model=video_swin_tiny"], "needs --videos=WHERE or --clips_file=FILE.npy"),
        (["--task=predict", "--model=video_swin_tiny", "--clips_file=no.npy"], "there is no file no.npy"),
        (["--task=predict", "--model=video_swin_tiny", "--clips_file=README.md"], "README.md is not a .npy array"),
        (["--task=predict", "--model=video_swin_tiny", "--clips_file=FLAT"], "expected clips (b, t, h, w, 3)"),
        (["--task=predict", "--model=video_swin_tiny", "--clips_file=INTS"], "expected uint8 (0..255) or float32"),
        (
            ["--task=predict", "--model=tests", "--clips_file=CLIPS"],
            "tests is not a converted or trained network: model.json is missing",
        ),
        (["--task=predict", "--model=tiny.safetensors", "--clips_file=CLIPS"], "this path does not exist"),
        (["--task=attribute", "--model=worlds_cnn"], "needs --run=NAME, --videos=WHERE"),
        (
            ["--task=attribute", "--model=worlds_cnn", "--videos=worlds:small:1", "--run=x", "--methods=cams"],
            "(did you",
        ),
        (["--task=motion", "--model=worlds_cnn", "--videos=worlds:small:1", "--run=x", "--targets=up"], "no target"),
        (
            [*MOTION, "--methods=gradcam,guided_backprop"],
            "error: --methods: guided_backprop: guided backpropagation needs a network with ReLUs",
        ),
        ([*MOTION, "--methods=expected_gradients"], "error: --methods: expected_gradients requires references="),
        (
            [*MOTION, "--motion_thresholds=1,-2"],
            "error: --motion_thresholds: expected numbers of at least 0, got -2",
        ),
        ([*MOTION, "--motion_thresholds=1,x"], "error: --motion_thresholds: expected numbers, got 1,x"),
        (
            [*MOTION, "--motion_variant=paper"],
            "--motion_variant=paper: value should be one of",
        ),
        (
            ["--task=motion", "--model=worlds_cnn", "--videos=worlds:small:1", "--run=x", "--stages=pool"],
            ": pool has shape (1,",
        ),
        (
            ["--task=attribute", "--model=README.md", "--videos=worlds:small:1", "--run=x"],
            "error: --model: README.md is not",
        ),
        (
            ["--task=predict", "--model=worlds_cnn", "--videos=worlds:tiny:2"],
            "error: --videos: worlds:tiny:2: no world",
        ),
        (
            ["--task=predict", "--model=worlds_cnn", "--interval_seconds=-1"],
            "error: --interval_seconds: expected more than 0, got -1",
        ),
        (["--task=predict", "--clips_per_video=zero"], "error: --clips_per_video=zero: expected a whole number"),
        (["--task=tcav", "--alpha=x"], "error: --alpha=x: expected a number"),
        (
            ["--task=motion", "--model=m", "--videos=v", "--run=x", "--motion_threshold_sd=nan"],
            "--motion_threshold_sd: expected a finite number",
        ),
        (
            ["--task=attribute", "--model=worlds_cnn", "--videos=CLIPS", "--run=RUN"],
            "error: --videos: the only video of",
        ),
        (["--task=motion", "--model=worlds_cnn", "--videos=CLIPS", "--run=RUN"], "could not be read: "),
        (
            ["--task=attribute", "--model=worlds_swin", "--videos=CLIPS", "--run=RUN", "--methods=guided_backprop"],
            "--methods: guided_backprop: guided backpropagation needs a network with ReLUs",
        ),
        (
            [*ATTRIBUTE, "--methods=occlusion", "--window=2,8"],
            "error: --window: expected frames, height and width as three",
        ),
        ([*ATTRIBUTE, "--methods=gradcam", "--window=2,8,8"], "error: --window: none of the methods gradcam uses it"),
        ([*ATTRIBUTE, "--methods=occlusion", "--window=9,8,8"], "--methods: window must fit the clip, (8, 32, 32)"),
        ([*ATTRIBUTE, "--methods=lime", "--masks=90", "--budget=80"], "more than the budget of 80"),
        (["--task=motion", "--compare_optical_flow=maybe"], "--compare_optical_flow=maybe: expected true or false"),
        (
            ["mine_concepts", "--videos=DIR", "--model=worlds_cnn", "--concepts=left=@direction:left", "--out=x"],
            "has no labels for direction; pass its manifest.csv",
        ),
        (["--flagfile=nowhere"], "error: --flagfile cannot be read"),
        (["--task=experiment", "--model=worlds_swin", "--videos=v", "--run=x"], "--targets=CLASS,..."),
        (["--task=experiment", *EXPERIMENT, "--targets=direction:west"], "error: --targets: no target named"),
        (["--task=experiment", *EXPERIMENT, "--stages=layer.0"], "error: --stages: no stage named"),
        (["--task=experiment", *EXPERIMENT, "--concepts=="], "error: --concepts"),
        (
            ["--task=experiment", *EXPERIMENT, "--movements"],
            "--concepts: expected --concepts=NAME,..., --movements or --discover, got --concepts and --movements",
        ),
        (
            ["--task=experiment", *EXPERIMENT, "--coordinator=auto"],
            "motion, evaluate_methods, not of experiment; remove it",
        ),
        (["--task=train", "--model=m", "--videos=v", "--run=x", "--steps=0", "--augment=flop"], "--augment=flop"),
        (
            ["--task=evaluate_methods", "--run=x", "--benchmarks=speed", "--max_clips=1"],
            "got 'speed'; --max_clips: expected at least 2 and at most 1e+06, got 1",
        ),
        (
            ["--task=train", "--model=m", "--videos=v", "--run=x", "--steps=0", "--label_smoothing=2"],
            "error: --steps: expected at least 1, got 0; --label_smoothing: expected at least 0 and less than 1, got 2",
        ),
        (
            ["--task=motion", "--model=worlds_cnn", "--videos=worlds:small:1", "--run=.."],
            "--run: expected a name, or a",
        ),
        ([*MINE_LEFT, "--out=DIR", "--target_videos="], "--target_videos: expected a value, got nothing"),
        (
            ["predict", "--model=worlds_cnn", "--videos=worlds:small:1", "--out="],
            "--out: expected a value, got nothing",
        ),
        ([*PREDICT, "--batch_size=100000000000000000000"], "expected at least 1 and at most 65536, got 1e+20"),
        ([*PREDICT, "--num_workers=100000"], "expected at least 0 and at most 512, got 100000"),
        ([*PREDICT, f"--top_k=1{'0' * 400}"], "expected at least 1 and at most 1e+09, got more"),
        (["tcav", *TCAV, "--permutations=100000000000000000000"], "at least 1 and at most 1e+06, got 1e+20"),
        (["predict", "--model=worlds_cnn", "--videos=worlds:small:99999999999"], "at most 10000000 clips"),
        (["predict", "--model=worlds_cnn", "--videos=no\x1b[31mred"], "no\\x1b[31mred"),
        (["predict", "--model=worlds_cnn", "--videos=CLIPS"], "error: --videos: the only video of"),
        (["predict", "--model=hf:HUB", "--videos=worlds:small:1"], "it is nested too deeply"),
    ],
)
def test_errors_are_one_sentence(tmp_path, arguments, message):
    np.save(tmp_path / "CLIPS.npy", np.zeros((1, 8, 32, 32, 3), np.uint8))
    np.save(tmp_path / "FLAT.npy", np.zeros((8, 32, 32, 3), np.uint8))
    np.save(tmp_path / "INTS.npy", np.zeros((1, 8, 32, 32, 3), np.int64))
    (tmp_path / "DIR.npy").mkdir()
    (tmp_path / "HUB.npy").mkdir()
    (tmp_path / "HUB.npy" / "config.json").write_text("[" * 100_000)
    write_video(tmp_path / "DIR.npy" / "a.mp4", np.zeros((8, 32, 32, 3)))
    arguments = [
        re.sub(r"=([A-Z]+)$", rf"={tmp_path}/\1.npy", a.replace("hf:HUB", f"hf:{tmp_path}/HUB.npy")) for a in arguments
    ]
    text = main(*arguments, code=1)
    assert message in text


def test_every_flag_is_in_the_help_of_its_tasks():
    text = main("--helpfull")
    flags_of_task = {task: set(flag_specs(spec.argument_class)) for task, spec in TASKS.items()}
    common = set(flag_specs(CommonArguments))
    assert len(set.union(common, *flags_of_task.values())) > 50
    for task, own_flags in flags_of_task.items():
        assert f"\n  {task} " in main("--help") and help_text.format_help(task) in text
        assert set(re.findall(r"^  --(?:\[no\])?(\w+)", help_text.format_help(task), re.M)) == own_flags | common, task
    for spec in TASKS.values():
        assert all(flag.info.help for flag in flag_specs(spec.argument_class).values())
    for code in help_text.EXIT_CODES:
        assert f"  {code:>3}  " in text
    assert "--detector" not in main("report", "--help") and main("report", "--help") == main("--help", "--task=report")
    assert main() == main("--help") and main("--version") == f"vtcav {vtcav_jax.__version__}\n"
    assert sorted(task for group in TASK_GROUPS.values() for task in group) == sorted(TASKS)


def ended(lines, *arguments):
    """A command whose task `inspect` does `lines`: exit code, stdout and stderr."""
    program = (
        "from dataclasses import replace\n"
        f"def inspect_network(args, context):\n    {lines}\n"
        "from vtcav_jax.cli.commands import inspect_network as module\n"
        "module.inspect_network = inspect_network\nmain.start()"
    )
    return run_cli("--task=inspect", "--model=a b", *arguments, program=program)


def test_exit_codes_and_last_words():
    assert ended("pass") == (0, "", "")
    code, out, err = ended(
        "from vtcav_jax.settings import SettingError; raise SettingError(('seed', 'expected 4, got 3'))"
    )
    assert (code, out, err) == (1, "", "error: --seed: expected 4, got 3\n")
    assert ended("raise OSError('the disk is full')")[::2] == (1, "error: the disk is full\n")
    assert ended("raise BrokenPipeError('a worker')")[::2] == (1, "error: a worker\n")
    code, _, err = ended("raise KeyError('x')")
    assert code == 70 and "Traceback" in err and "internal error" in err
    code, _, err = ended("raise KeyboardInterrupt")
    assert code == 130 and "saved: nothing" in err and "vtcav inspect '--model=a b'" in err


def test_a_missing_device_is_one_sentence():
    program = "import os, jax\nos.environ['JAX_PLATFORMS'] = '{0}'\njax.config.update('jax_platforms', '{0}')\n"
    program += "main.start()"
    predict = ["predict", "--model=worlds_cnn", "--videos=worlds:small:1"]
    for platform, advice in (("cuda", "install the extra cuda, or unset"), ("nothing", "unset")):
        code, _, err = run_cli(*predict, program=program.format(platform))
        assert (code, err) == (1, f"error: JAX finds no {platform} device; {advice} JAX_PLATFORMS\n")


@pytest.mark.slow
def test_a_closed_reader_ends_the_command_silently():
    """Also in a pipeline, whose steps write to the same closed stream."""
    closed = "import os, sys\nr, w = os.pipe()\nos.close(r)\nos.dup2(w, 1)\n"
    for arguments in (
        ("predict", "--model=worlds_cnn", "--videos=worlds:small:2"),
        ("--task=experiment", *EXPERIMENT, "--dry_run"),
        ("--help",),
    ):
        program = closed + "os.environ['JAX_PLATFORMS'] = 'cpu'\nmain.start()"
        code, _, err = run_cli(*arguments, program=program)
        assert code in (141, -13) and not err, (arguments, code, err)
    steps = [["predict", "--model=worlds_cnn", "--videos=worlds:small:2"]]
    children = f"from vtcav_jax.cli.pipeline import run_pipeline\nsys.exit(run_pipeline({steps}, ['--quiet']))"
    quiet = "from vtcav_jax import console\nconsole.verbosity.set('quiet')\n"
    code, _, err = run_cli(program=closed + quiet + children)
    assert code == 141 and not err


def test_a_killed_step_of_a_pipeline_is_named(monkeypatch, capsys):
    monkeypatch.setattr(subprocess, "run", lambda command, env: subprocess.CompletedProcess(command, -9))
    assert run_pipeline([["inspect"], ["predict"]]) == 137
    assert capsys.readouterr().err == "error: step 1 was ended by SIGKILL, possibly out of memory\n"


def test_synthetic_clips_do_not_mix_with_other_files(tmp_path):
    folder = tmp_path / "clips"
    command = ["render_world", "--videos=worlds:small:3:0", f"--out={folder}"]
    main(*command)
    (folder / "boxes.csv").unlink()
    (folder / ".clip_0_000002.mp4.part0123").touch()  # as of a killed command
    main(*command)
    assert (folder / "boxes.csv").exists()
    refused = "holds other files; choose another folder, or remove it"
    for videos in ("worlds:small:2:0", "worlds:small:3:1", "worlds:events:3:0"):
        assert refused in main("render_world", f"--videos={videos}", f"--out={folder}", code=1)
    (folder / "mine.mp4").touch()
    assert refused in main(*command, code=1)


@pytest.mark.slow
def test_later_commands_use_compiled_programs_again(tmp_path):
    command = ("predict", "--model=worlds_cnn", "--videos=worlds:small:2:1", f"--compile_cache={tmp_path / 'cache'}")

    def programs() -> set[str]:
        return {path.name for path in (tmp_path / "cache").rglob("*-cache")}

    assert run_cli(*command)[0] == 0
    first = programs()
    assert first and run_cli(*command)[0] == 0 and programs() == first
    in_environment = f"import os; os.environ['JAX_COMPILATION_CACHE_DIR'] = '{tmp_path / 'other'}'; main.start()"
    assert run_cli(*command[:-1], program=in_environment)[0] == 0 and programs() == first


def test_a_log_in_json_ends_with_the_code():
    code, out, err = ended("raise ValueError('no')", "--log_json")
    lines = [json.loads(line) for line in err.splitlines()]
    assert [line["event"] for line in lines] == ["warning", "end"] and (code, lines[1]["code"], out) == (1, 1, "")


@pytest.mark.slow
@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_says_what_is_safe_and_the_same_command_goes_on(tmp_path):
    flags = ["--task=mine_concepts", "--videos=worlds:small:240:0", "--model=worlds_swin", "--concepts=@direction:left"]
    flags += [
        f"--out={tmp_path / 'sets'}",
        "--num_random_sets=2",
        "--max_clips=40",
        "--num_workers=0",
    ]  # some seconds of work
    run = subprocess.Popen([sys.executable, "main.py", *flags], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    while not list(tmp_path.rglob("*.mp4")):
        assert run.poll() is None
        time.sleep(0.01)
    run.send_signal(signal.SIGINT)
    _, err = run.communicate(timeout=60)
    assert run.returncode == 130 and "Traceback" not in err and "the same command continues" in err
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.mp4")}
    assert "review.html" in main(*flags)
    assert before and all(path.stat().st_mtime_ns == time for path, time in before.items())


@pytest.mark.slow
def test_flags_that_a_sentence_is_about_are_named():
    flags = ["--task=tcav", "--model=worlds_swin", "--targets=direction:left", "--run=x"]
    text = main(*flags, "--target_videos=nowhere", "--concept_dir=c", code=1)
    assert text.startswith("error: --target_videos: there is no file or folder nowhere")
    text = main(*flags, "--target_videos=worlds:small:9:0", "--concept_dir=nothere", code=1)
    assert text.startswith("error: --concept_dir: there is no folder nothere")
    text = main("--task=report", "--run=no/such", code=1)
    assert text.startswith("error: --run: there is no no/such/run.json")


def test_an_experiment_says_its_steps_and_does_nothing_yet(tmp_path):
    text = main(
        "--task=experiment",
        *EXPERIMENT,
        f"--run={tmp_path / 'a b'}",
        "--max_clips=6",
        "--max_target_clips=8",
        "--dry_run",
    )
    first, second = (line for line in text.splitlines() if line)
    assert first.startswith("[1/2] vtcav mine_concepts ") and f"'--out={tmp_path / 'a b_concepts'}'" in first
    assert "--max_clips=6" in first and "--target_videos=worlds:small:60:5" in first and "--targets" not in first
    assert second.startswith("[2/2] vtcav tcav ") and f"'--run={tmp_path / 'a b'}'" in second
    assert f"'--concept_dir={tmp_path / 'a b_concepts'}'" in second and "--max_target_clips=8" in second
    assert not {"--max_clips", "--videos", "--dry_run", "left=@direction"} & set(
        re.findall(r"(--\w+|left=@\w+)", second)
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_an_experiment_mines_and_tests_and_goes_on(tmp_path):
    command = [
        "--task=experiment",
        *EXPERIMENT,
        *("--model=worlds_cnn", "--videos=worlds:small:120:0", "--target_videos=worlds:small:40:5"),
        f"--run={tmp_path / 'runs' / 'a'}",
        "--max_clips=6",
        "--num_random_sets=3",
    ]
    command += [
        "--max_target_clips=8",
        "--stages=convs.1,pool",
        "--comparisons=absolute,motion",
        "--calibration_trials=2",
    ]
    text = main(*command)
    page, sets = tmp_path / "runs" / "a" / "report" / "index.html", tmp_path / "runs" / "a_concepts"
    assert f"page: {page}" in text and f"open {sets / 'review.html'}" in text
    assert "2 concepts: left, ring; 6 static and 6 dynamic clips each" in page.read_text()
    record = tmp_path / "runs" / "a" / "run.json"
    before = json.loads(record.read_text())["hashes"]["concepts"]
    one = next(name for name in before if name.startswith("left/static/"))
    (sets / "review.csv").write_text(f"file,verdict\n{one},reject\n")
    forwards = re.search(r"encoded: (\d+) clips forward, 0 backward", main(*command))
    assert forwards and int(forwards[1]) <= 4  # the clip that took its place, and random ones that were near it
    assert one not in json.loads(record.read_text())["hashes"]["concepts"]


def test_an_experiment_on_movements_mines_them_first(tmp_path):
    others = [flag for flag in EXPERIMENT if not flag.startswith("--concepts")]
    movements = ("--movements", "--num_movements=4", "--movement_sides=mirrored", "--detector=yolov8n-pose.pt")
    text = main("experiment", *others, *movements, f"--run={tmp_path / 'run'}", "--dry_run")
    mining, testing = (line for line in text.splitlines() if line)
    assert "vtcav mine_concepts " in mining and all(flag in mining for flag in movements)
    assert "vtcav tcav " in testing and "--movement" not in testing
    _, _, err = run_cli("experiment", *others, "--dry_run")
    assert "expected --concepts=NAME,..., --movements or --discover, got none" in err
