"""The README tells the truth: its Python runs, its commands exist, its tables are those of the results."""

import re
from pathlib import Path

import pytest

from benchmarks import tables
from vtcav_jax import models

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_python_blocks_run_one_after_the_other(capsys):
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) == 3
    scope: dict = {"__name__": "readme"}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), scope)
    assert capsys.readouterr().out.startswith("edges (2, 8, 32, 32, 16)")
    assert scope["found"].gradients["layers.1"].shape == (2, 4, 4, 4, 96)


def test_the_own_model_takes_twenty_lines():
    block = re.findall(r"```python\n(.*?)```", README, re.DOTALL)[0]
    assert len([line for line in block.splitlines() if line.strip()]) <= 20


def test_the_tables_are_those_of_the_results():
    assert tables.filled(README) == README


@pytest.mark.parametrize("name", tables.TABLES)
def test_every_table_has_a_measurement(name):
    assert tables.results(name)


def test_named_files_and_targets_exist():
    for path in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / path).exists(), path
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"\bmake ([a-z-]+)", README):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    for preset in re.findall(r"--(?:model|preset)=(video_swin\w+)", README):
        assert preset in models.PRESETS
