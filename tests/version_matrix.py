"""Core tests on several versions of Python and JAX, without packages that only some tasks need.

    python -m tests.version_matrix [--folder=.venv/versions] [--pythons=3.11,3.12] [--jax=0.10,0.11]

Each pair has an environment of its own, made from the package registry. A pair that cannot be had is reported with the
reason, and is no failure; if no pair can be had, the run fails.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
PYTHONS, JAX_VERSIONS = ("3.11", "3.12", "3.13"), ("0.10", "0.11", "0.12")
OMITTED = {"av", "tensorflow-datasets"}  # and all extras
TEST_PACKAGES = ("pytest", "beartype")
TESTS = (
    *("test_imports.py", "test_tap.py", "test_atomic.py", "test_console.py", "stats"),
    *("models/test_stages.py", "models/test_video_swin.py", "models/test_parameters.py", "models/test_zoo.py"),
    *("tcav/stats", "tcav/features/test_gram.py", "runs/test_directory.py", "runs/test_tables.py"),
    *("attribution/test_cam.py", "attribution/test_integrated.py", "attribution/test_attention.py"),
    *("attribution/lrp/test_lrp.py", "attribution/removal/test_removal_methods.py"),
    *("attribution/motion/test_temporal_probes.py", "training/test_loop.py", "cli/test_pyramid_command.py"),
)
SETTINGS = {
    "XLA_FLAGS": "--xla_backend_optimization_level=0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
}


def dependencies(jax: str) -> list[str]:
    """Return the requirements of the package and of its tests, with one version of JAX."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    names = {requirement: re.split(r"[^\w-]", requirement)[0] for requirement in project["dependencies"]}
    requirements = [requirement for requirement, name in names.items() if name not in {*OMITTED, "jax"}]
    return [*requirements, *TEST_PACKAGES, f"jax=={jax}.*"]


def find_python(version: str) -> Path | None:
    """Return an interpreter of this version on the path, or one of uv or pyenv."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    candidates = [shutil.which(f"python{version}"), *sorted(pyenv.glob(f"versions/{version}.*/bin/python"))]
    if shutil.which("uv"):
        answer = subprocess.run(["uv", "python", "find", version], capture_output=True, text=True, check=False)
        candidates.append(answer.stdout.strip() or None)
    code = "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2])"
    for candidate in filter(None, candidates):
        answer = subprocess.run([candidate, "-c", code], capture_output=True, text=True, check=False)
        if answer.stdout.strip() == version:
            return Path(candidate)
    return None


def make_environment(python: Path, folder: Path, jax: str) -> str:
    """Install what the tests need, unless that is done; return why it cannot be had, "" if it can."""
    requirements = "\n".join(dependencies(jax))
    done = folder / "installed.txt"
    if done.exists() and done.read_text("utf-8") == requirements:
        return ""
    subprocess.run([python, "-m", "venv", "--clear", folder], check=True)
    pip = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    installed = subprocess.run([*pip, *requirements.splitlines()], capture_output=True, text=True, check=False)
    if installed.returncode:
        shutil.rmtree(folder)
        if needed := re.search(rf"\b{re.escape(jax)}\.\d+ Requires-Python ([^;\s]+)", installed.stderr):
            return f"jax {jax} needs Python {needed[1]}"
        errors = [line for line in installed.stderr.splitlines() if line.startswith("ERROR:")]
        return (errors or ["ERROR: pip gave no reason"])[-1].removeprefix("ERROR: ")
    done.write_text(requirements, encoding="utf-8")
    return ""


def installed_versions(python: Path) -> str:
    code = "from importlib.metadata import version; print(*(f'{n} {version(n)}' for n in ('jax', 'flax')), sep=', ')"
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def run_tests(python: Path, compiled: Path) -> tuple[bool, str]:
    """Return whether the tests passed, and the last line of pytest."""
    command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=short", "-m", "not slow"]
    run = subprocess.run(
        [*command, *(f"tests/{name}" for name in TESTS)],
        cwd=ROOT,
        env=os.environ | SETTINGS | {"JAX_COMPILATION_CACHE_DIR": str(compiled)},
        capture_output=True,
        text=True,
        check=False,
    )
    if run.returncode:
        print(run.stdout, run.stderr, sep="\n", flush=True)
    return run.returncode == 0, (run.stdout.strip().splitlines() or ["pytest printed nothing"])[-1].strip("= ")


def run_matrix(folder: Path, pythons: list[str], jax_versions: list[str]) -> Iterator[tuple[str, str, str]]:
    """Yield the pair, "passed", "failed" or "skipped", and the counts or the reason."""
    for version in pythons:
        python = find_python(version)
        for jax in jax_versions:
            pair, environment = f"Python {version}, jax {jax}", folder / f"python{version}-jax{jax}"
            reason = make_environment(python, environment, jax) if python else f"no Python {version} on this machine"
            if reason:
                yield pair, "skipped", reason
                continue
            passed, counts = run_tests(environment / "bin" / "python", folder / "compiled")
            versions = installed_versions(environment / "bin" / "python")
            yield pair, "passed" if passed else "failed", f"{counts} ({versions})"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=ROOT / ".venv" / "versions", help="folder of the environments")
    parser.add_argument("--pythons", default=",".join(PYTHONS))
    parser.add_argument("--jax", default=",".join(JAX_VERSIONS))
    options = parser.parse_args()
    outcomes = []
    for pair, outcome, details in run_matrix(
        options.folder.absolute(), options.pythons.split(","), options.jax.split(",")
    ):
        outcomes.append(outcome)
        print(f"{pair:<24}{outcome:<10}{details}", flush=True)
    return int("failed" in outcomes or "passed" not in outcomes)


if __name__ == "__main__":
    sys.exit(main())
