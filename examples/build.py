"""Build the notebooks: the cells of each script beside this file, executed in a fresh kernel.

    python examples/build.py                      # all of them
    python examples/build.py own_jax_network      # one

A cell begins with `# %%`, a text cell with `# %% [markdown]`; a shell command is a comment that begins with `# !`.
Needs `pip install 'vtcav-jax[notebook,torch]' nbclient`.
"""

import os
import sys
import time
from pathlib import Path
from typing import Any

import nbformat

FOLDER = Path(__file__).parent
CELL_MARK, TEXT_MARK, SHELL_MARK = "# %%", "# %% [markdown]", "# !"
MAX_NOTEBOOK_BYTES = 1_000_000
CELL_SECONDS = 600


def example_names() -> list[str]:
    """Return the names of all notebooks."""
    return sorted(path.stem for path in FOLDER.glob("*.py") if path.name != Path(__file__).name)


def read_cells(text: str) -> list[tuple[str, str]]:
    """Return the kind (markdown or code) and the source of each cell of a script."""
    cells: list[tuple[str, list[str]]] = []
    for line in text.splitlines():
        if line.startswith(CELL_MARK):
            cells.append(("markdown" if line == TEXT_MARK else "code", []))
        elif cells:
            cells[-1][1].append(line)
        elif line:
            raise ValueError(f"expected a script that begins with {CELL_MARK!r}, got {line!r}")
    return [(kind, "\n".join(map(_markdown if kind == "markdown" else _code, lines)).strip()) for kind, lines in cells]


def _markdown(line: str) -> str:
    return line.removeprefix("#").removeprefix(" ")


def _code(line: str) -> str:
    return line.removeprefix("# ") if line.startswith(SHELL_MARK) else line


def make_notebook(name: str) -> Any:
    """Return the notebook of a script, not executed."""
    makers = {"markdown": nbformat.v4.new_markdown_cell, "code": nbformat.v4.new_code_cell}
    cells = read_cells((FOLDER / f"{name}.py").read_text(encoding="utf-8"))
    metadata = {
        "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
        "language_info": {"name": "python"},
    }
    return nbformat.v4.new_notebook(
        cells=[makers[kind](source, id=f"{name.replace('_', '-')}-{i}") for i, (kind, source) in enumerate(cells)],
        metadata=metadata,
    )


def execute_notebook(notebook: Any) -> None:
    """Run all cells in a fresh kernel of this interpreter; the first error of a cell is raised."""
    from nbclient import NotebookClient

    folder = str(Path(sys.executable).parent)
    environment = os.environ | {"PATH": os.pathsep.join((folder, os.environ.get("PATH", "")))}
    client = NotebookClient(notebook, timeout=CELL_SECONDS, coalesce_streams=True)
    client.create_kernel_manager().transport = "ipc"  # sockets of this user instead of TCP ports
    client.execute(env=environment)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times of this machine
    notebook.metadata["language_info"] = {"name": "python"}


def build(name: str) -> Path:
    """Execute a script and write its notebook; return the path."""
    start = time.perf_counter()
    notebook = make_notebook(name)
    execute_notebook(notebook)
    text = nbformat.writes(notebook) + "\n"
    if len(text.encode()) > MAX_NOTEBOOK_BYTES:
        size = len(text.encode())
        raise ValueError(f"{name} has {size:,} bytes, more than {MAX_NOTEBOOK_BYTES:,}; display less in it")
    path = FOLDER / f"{name}.ipynb"
    path.write_text(text, encoding="utf-8")
    print(f"{path}: {time.perf_counter() - start:.0f} s, {len(text.encode()) / 1000:.0f} kB", flush=True)
    return path


if __name__ == "__main__":
    for example in sys.argv[1:] or example_names():
        build(example)
