"""README and docs are true: their code runs, their commands exist, their tables are those of the results."""

import importlib
import re
import shlex

import pytest

import vtcav_jax
from benchmarks import write_tables
from tests.support.cli_runner import stop_cli_server
from tests.support.docs_pages import (
    DOCS,
    PAGES,
    PLACEHOLDER,
    README,
    ROOT,
    TUTORIAL,
    commands,
    page_name,
    run_page,
    runnable_steps,
)
from vtcav_jax.cli.arguments import CommonArguments, flag_specs
from vtcav_jax.cli.main import parse_command
from vtcav_jax.cli.tasks import TASKS
from weights_conversion.torch_reference import video_models

NOT_MEASURED = {"accelerator"}  # tables that still need a machine
PAGES_WITH_CODE = [page for page in PAGES if page != TUTORIAL and runnable_steps(page)]  # test_tutorial.py has that one


@pytest.fixture(scope="module", autouse=True)
def _server():
    video_models()  # a torchvision built for CUDA loads only with this after a torch without
    yield
    stop_cli_server()


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES_WITH_CODE, ids=page_name)
def test_the_code_of_a_page_runs_from_top_to_bottom(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_page(page, tmp_path)


def test_most_pages_have_code_that_runs():
    steps = [step for page in PAGES for step in runnable_steps(page)]
    assert len(PAGES_WITH_CODE) >= 12
    assert sum(language == "sh" for language, _ in steps) >= 15


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_every_command_has_flags_that_its_task_takes(page):
    text = page.read_text(encoding="utf-8")
    inline = re.findall(r"`(vtcav [^`]*)`", text)
    for command in [*commands(text), *(" ".join(command.split()) for command in inline)]:
        words = [word for word in shlex.split(command)[1:] if word not in ("--help", "--helpfull", "--version")]
        task = words[0].removeprefix("--task=") if words else ""
        if not words or words[0].startswith("--flagfile") or task == "TASK":
            continue
        flags = {"flagfile", *flag_specs(CommonArguments), *flag_specs(TASKS[task].argument_class)}
        for word in words[1:]:
            name = word.removeprefix("--").partition("=")[0]
            assert name in flags or name.removeprefix("no") in flags, (task, name)
        if not PLACEHOLDER.search(command) and command in list(commands(text)):
            parse_command([f"--task={task}", *words[1:]])


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_named_files_and_targets_exist(page):
    text = page.read_text(encoding="utf-8")
    for path in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text) + re.findall(r'src="([^"]*)"', text):
        assert (page.parent / path).exists(), path
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"(?:`|^)make ([a-z-]+)", text, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE) or f" {target}" in makefile, target
    for path in re.findall(r"`((?:benchmarks|flagfiles|tests|vtcav_jax|weights_conversion)/[\w./]*\.\w+)`", text):
        assert (ROOT / path).exists(), path


@pytest.mark.slow
@pytest.mark.parametrize("page", write_tables.PAGES_WITH_TABLES, ids=page_name)
def test_the_tables_are_those_of_the_results(page):
    text = page.read_text(encoding="utf-8")
    assert write_tables.fill_tables(text) == text


@pytest.mark.parametrize("name", write_tables.TABLE_WRITERS)
def test_every_table_has_a_measurement_and_a_place(name):
    assert bool(write_tables.render_results(name)) != (name in NOT_MEASURED)
    assert any(f"<!-- table: {name} -->" in page.read_text(encoding="utf-8") for page in write_tables.PAGES_WITH_TABLES)


def test_the_readme_is_short():
    assert README.read_text(encoding="utf-8").count("\n") <= 150


def test_every_public_name_is_documented():
    """`make docs` checks that each entry can be rendered; here none may be missing, in docs or as a docstring."""
    reference = "".join(path.read_text(encoding="utf-8") for path in (DOCS / "api").glob("*.md"))
    for name in vtcav_jax.__all__:
        assert re.search(rf"(\.|`|\b){re.escape(name)}\b", reference), name
    for path in re.findall(r"^::: (\S+)$", reference, re.MULTILINE):
        module, _, name = path.rpartition(".")
        try:
            target = getattr(importlib.import_module(module), name)
        except ModuleNotFoundError:
            target = importlib.import_module(path)
        assert (target.__doc__ or "").strip(), path
        assert not (target.__doc__ or "").startswith(f"{name}("), f"{path} has only a generated docstring"
