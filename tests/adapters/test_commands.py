"""Commands with a user's network, and with a file of class names."""

import pytest

from tests.support.cli_runner import run_cli, stop_cli_server

FACTORY = """
from vtcav_jax import ClipSpec, from_function

def make():
    return from_function(lambda video, tap: tap("colour", video.mean((1, 2, 3))), clip=ClipSpec(frames=8, size=32))

def broken():
    return 1 / 0
"""


@pytest.fixture(scope="module", autouse=True)
def _server():
    yield
    stop_cli_server()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "nets.py").write_text(FACTORY)
    (tmp_path / "labels.txt").write_text("red\ngreen\nblue\n")
    return tmp_path


@pytest.mark.slow
def test_a_users_network_predicts_classes_of_a_file(folder):
    code, out, err = run_cli(
        "predict", "--model=nets:make", "--labels=labels.txt", "--videos=worlds:small:2:0", cwd=folder
    )
    assert code == 0, err
    assert any(name in out for name in ("red", "green", "blue"))
    code, out, _ = run_cli("inspect", "--model=nets:make", cwd=folder)
    assert code == 0 and "colour" in out and "3 classes" in out


@pytest.mark.parametrize(
    ("model", "labels", "message"),
    [
        ("nets:make", "a\nb\n", "2 names for 3 classes"),
        ("worlds_cnn", "a\n", "one list of class names per head, as in shape:FILE,direction:FILE"),
        ("nets:broken", "a\n", "nets.py, line 8: ZeroDivisionError: division by zero"),
        ("nets:mak", "a\n", "no function named 'mak' (did you mean make"),
        ("hf:nowhere", "a\n", "nowhere"),
    ],
)
def test_faults_of_networks_and_labels_are_one_sentence(folder, model, labels, message):
    (folder / "labels.txt").write_text(labels)
    code, _, err = run_cli(
        "predict", f"--model={model}", "--labels=labels.txt", "--videos=worlds:small:2:0", cwd=folder
    )
    assert code in (1, 2), err
    assert message in err and "Traceback" not in err
