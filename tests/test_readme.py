"""README and docs: Python blocks run, commands and files exist, and tables match the stored results."""

import re
from pathlib import Path

import pytest

from benchmarks import write_tables
from vtcav_jax import models
from vtcav_jax.cli.arguments import CommonArguments, flag_specs
from vtcav_jax.cli.tasks import TASKS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.slow
def test_the_python_blocks_run_one_after_the_other(capsys):
    blocks = [block for page in PAGES for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)]
    assert len(blocks) == 4
    scope: dict = {"__name__": "readme"}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), scope)
    assert capsys.readouterr().out.startswith("edges (2, 8, 32, 32, 16)")
    assert scope["found"].gradients["layers.1"].shape == (2, 4, 4, 4, 96)


def test_the_example_of_a_custom_model_has_at_most_twenty_lines():
    block = re.findall(r"```python\n(.*?)```", README, re.DOTALL)[0]
    assert len([line for line in block.splitlines() if line.strip()]) <= 20


@pytest.mark.parametrize("page", write_tables.PAGES_WITH_TABLES, ids=lambda page: page.stem)
def test_the_tables_are_those_of_the_results(page):
    text = page.read_text(encoding="utf-8")
    assert write_tables.fill_tables(text) == text


@pytest.mark.parametrize("name", write_tables.TABLE_WRITERS)
def test_every_table_has_a_measurement_and_a_place(name):
    assert write_tables.render_results(name)
    assert any(f"<!-- table: {name} -->" in page.read_text(encoding="utf-8") for page in write_tables.PAGES_WITH_TABLES)


def test_the_readme_is_short():
    assert README.count("\n") <= 150


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_named_files_and_targets_exist(page):
    text = page.read_text(encoding="utf-8")
    for path, place in re.findall(r"\]\(([^)#:]+)(#[^)]*)?\)", text):
        assert (page.parent / path).exists(), path
        headings = re.findall(r"^#+ (.*)$", (page.parent / path).read_text(encoding="utf-8"), re.M) if place else []
        assert not place or place[1:] in [heading.lower().replace(" ", "-") for heading in headings], (path, place)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"(?:`|^)make ([a-z-]+)", text, re.M):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    for path in re.findall(r'src="([^"]*)"', text):
        assert (page.parent / path).exists(), path
    for preset in re.findall(r"--(?:model|preset)=(video_swin\w+)", text):
        assert preset in models.PRESETS


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_have_flags_that_their_task_takes(page):
    for line in re.findall(r"main\.py (--task=.*)", page.read_text(encoding="utf-8")):
        task = line.partition("--task=")[2].split()[0].strip("`")
        flags = {"task", "flagfile", *flag_specs(CommonArguments), *flag_specs(TASKS[task].argument_class)}
        for name in re.findall(r"--(\w+)", line.partition("   #")[0]):
            assert name in flags, (task, name)
