"""The notebooks: each is its script, executed without an error, small, and runs again without downloads."""

import json
from importlib.util import find_spec

import pytest

nbformat = pytest.importorskip("nbformat", reason="notebooks need nbformat and nbclient (extra test)")
pytest.importorskip("nbclient", reason="notebooks need nbformat and nbclient (extra test)")

from examples import build  # noqa: E402 (needs nbformat)

NAMES = build.example_names()
# First cell of a run: every connection to another machine fails
NO_NETWORK = """
import socket

def refuse_connection(self, address):
    if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1", "localhost"):
        raise AssertionError(f"a notebook connects to {address}")
    return connect(self, address)

connect, socket.socket.connect = socket.socket.connect, refuse_connection
"""


def read_notebook(name):
    return nbformat.read(build.FOLDER / f"{name}.ipynb", as_version=4)


def test_there_are_five_notebooks():
    assert NAMES == [
        "five_minute_tour",
        "own_jax_network",
        "own_pytorch_network",
        "own_videos_to_a_page",
        "which_method_to_trust",
    ]


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_has_the_cells_of_its_script_and_their_results(name):
    notebook = read_notebook(name)
    nbformat.validate(notebook)
    assert [(cell.cell_type, cell.source) for cell in notebook.cells] == [
        (cell.cell_type, cell.source) for cell in build.make_notebook(name).cells
    ]
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert {output.output_type for output in outputs} <= {"stream", "display_data", "execute_result"}
    assert any("vtcav" in output.get("data", {}).get("text/html", "") for output in outputs)
    text = (build.FOLDER / f"{name}.ipynb").read_text(encoding="utf-8")
    assert len(text.encode()) < build.MAX_NOTEBOOK_BYTES and json.loads(text)["nbformat"] == 4


@pytest.mark.parametrize("name", NAMES)
def test_the_outputs_of_a_notebook_name_no_folder_of_this_machine(name):
    text = (build.FOLDER / f"{name}.ipynb").read_text(encoding="utf-8")
    for folder in (str(build.FOLDER.resolve().parent), "/home/", "/root/"):
        assert folder not in text, folder


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_runs_without_errors_and_downloads(name, monkeypatch):
    if "pytorch" in name and find_spec("torchax") is None:  # importing it here would set torch up for this process
        pytest.skip("this notebook needs torchax (extra torch)")
    monkeypatch.setenv("PYTHONPATH", str(build.FOLDER.resolve().parent))
    notebook = build.make_notebook(name)
    notebook.cells.insert(0, nbformat.v4.new_code_cell(NO_NETWORK))
    build.execute_notebook(notebook)  # raises on the first error of a cell
    stored = [cell for cell in read_notebook(name).cells if cell.cell_type == "code"]
    fresh = [cell for cell in notebook.cells[1:] if cell.cell_type == "code"]
    for before, after in zip(stored, fresh, strict=True):
        assert [set(output.get("data", {})) for output in before.outputs if output.output_type == "execute_result"] == [
            set(output.get("data", {})) for output in after.outputs if output.output_type == "execute_result"
        ]


def test_cells_are_read_from_a_script():
    script = "# %% [markdown]\n# # Title\n#\n# Text.\n\n# %%\nx = 1\n# !vtcav --version\n# a comment\n"
    assert build.read_cells(script) == [
        ("markdown", "# Title\n\nText."),
        ("code", "x = 1\n!vtcav --version\n# a comment"),
    ]
    with pytest.raises(ValueError, match="expected a script that begins with '# %%', got 'x = 1'"):
        build.read_cells("x = 1\n")
