"""Pages of the documentation: their code blocks and commands, and a run of both from top to bottom."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from tests.support.cli_runner import ROOT as ROOT_FOLDER
from tests.support.cli_runner import run_cli

ROOT = Path(ROOT_FOLDER)
README = ROOT / "README.md"
DOCS = ROOT / "docs"
TUTORIAL = DOCS / "tutorial.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", ROOT / "ARCHITECTURE.md", *sorted(DOCS.rglob("*.md"))]
BLOCK = re.compile(r'^```(sh|python(?: title="[\w.]+")?)\n(.*?)^```', re.DOTALL | re.MULTILINE)
PLACEHOLDER = re.compile(r"[A-Z]{2,}|weights/|flagfiles/|--help")  # in a command that only shows a pattern
# Run by the tutorial already, or by their own tests
NOT_RUN_AGAIN = {(README, "vtcav quickstart"), (DOCS / "index.md", "vtcav quickstart")}


def page_name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def code_blocks(page: Path) -> list[tuple[str, str]]:
    return BLOCK.findall(page.read_text(encoding="utf-8"))


def commands(text: str) -> Iterator[str]:
    """Every `vtcav` command of a shell block or in running text."""
    for line in text.splitlines():
        if line.startswith("vtcav "):
            yield line.partition("   #")[0].partition("  # ")[0].strip()


def runnable_steps(page: Path) -> list[tuple[str, str]]:
    """The Python blocks of a page and its commands without placeholders, in order."""
    steps = []
    for language, text in code_blocks(page):
        if language.startswith("python"):
            steps.append((language, text))
            continue
        steps += [
            ("sh", command)
            for command in commands(text)
            if not PLACEHOLDER.search(command) and (page, command) not in NOT_RUN_AGAIN
        ]
    return steps


def run_page(page: Path, folder: Path) -> dict[str, str]:
    """Run the steps of a page in a folder, which is the current one; return what each command printed."""
    scope: dict = {"__name__": "docs"}
    outputs = {}
    for language, text in runnable_steps(page):
        if file_name := language.partition('"')[2].rstrip('"'):
            (folder / file_name).write_text(text)
        if language.startswith("python"):
            exec(compile(text, page_name(page), "exec"), scope)
        else:
            code, outputs[text], err = run_cli(*shlex.split(text)[1:], cwd=folder)
            assert code == 0, (text, err)
    return outputs
