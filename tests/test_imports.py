"""Import structure: packages depend on each other in one direction, without cycles."""

import ast
import itertools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
LAYERS = (  # from the bottom; modules of the package itself (tap, settings, ...) are the lowest
    {"runs", "stats"},
    {"models", "data", "worlds", "adapters"},
    {"ahead_of_time", "tcav", "attribution", "pyramid", "concepts", "training", "discovery", "accuracy"},
    {"evaluation"},
    {"report"},
    {"serve"},
    {"cli", "__main__"},
)
MAX_FILES = 18  # per folder
OPTIONAL = (  # imported by the functions that need them
    *("av", "orbax", "safetensors", "scipy", "matplotlib", "PIL", "cv2", "tensorflow", "tensorflow_datasets"),
    *("torch", "torchax", "transformers", "ultralytics", "fsspec", "aiohttp", "ray", "starlette", "uvicorn"),
)
NEEDS_EXTRA = (  # modules that others import in functions
    "vtcav_jax.adapters.torch_environment",
    *("vtcav_jax.serve.access", "vtcav_jax.serve.routes", "vtcav_jax.serve.server"),
)


def module_files() -> dict[str, Path]:
    files = sorted((ROOT / "vtcav_jax").rglob("*.py"))
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in files}


def layer(module: str) -> int:
    package = ([*module.split("."), ""])[1]
    return next((i for i, packages in enumerate(LAYERS, start=1) if package in packages), 0)


def imports(path: Path, modules: dict[str, Path]) -> Iterator[tuple[int, str]]:
    """Yield line and module of each import of the package, also inside functions; skip imports for types only."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    type_checks = [
        node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
    ]
    skipped = {id(inner) for node in type_checks for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("vtcav_jax"):
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield node.lineno, full if full in modules else node.module
        elif isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names if alias.name in modules)


def upward_imports(modules: dict[str, Path]) -> list[str]:
    return [
        f"{path}:{line}: {module} must not import {imported}, which is above it"
        for module, path in modules.items()
        for line, imported in imports(path, modules)
        if layer(imported) > layer(module)
    ]


def find_cycle(modules: dict[str, Path]) -> list[str]:
    """Return the lines of one import cycle, or an empty list."""
    graph = {module: {imported: line for line, imported in imports(path, modules)} for module, path in modules.items()}
    finished: set[str] = set()

    def visit(module: str, trail: list[str]) -> list[str]:
        if module in trail:
            cycle = [*trail[trail.index(module) :], module]
            return [f"{modules[a]}:{graph[a][b]}: {a} imports {b}" for a, b in itertools.pairwise(cycle)]
        if module in finished:
            return []
        for imported in graph[module]:
            if cycle := visit(imported, [*trail, module]):
                return cycle
        finished.add(module)
        return []

    return next((cycle for module in modules if (cycle := visit(module, []))), [])


def test_no_module_imports_one_above_it():
    assert upward_imports(module_files()) == []


def test_no_import_cycles():
    assert find_cycle(module_files()) == []


def test_violations_are_reported_with_their_line(tmp_path):
    modules = {"vtcav_jax.tap": tmp_path / "tap.py", "vtcav_jax.report.html": tmp_path / "html.py"}
    modules["vtcav_jax.tap"].write_text("x = 1\ndef f():\n    from vtcav_jax.report import html\n")
    modules["vtcav_jax.report.html"].write_text("from vtcav_jax import tap\n")
    (upward,) = upward_imports(modules)
    assert upward.startswith(f"{tmp_path / 'tap.py'}:3: vtcav_jax.tap must not import vtcav_jax.report.html")
    assert len(find_cycle(modules)) == 2


def test_no_folder_has_too_many_files():
    counts = {folder: len(list(folder.glob("*.py"))) for folder in {path.parent for path in module_files().values()}}
    assert {str(folder): n for folder, n in counts.items() if n > MAX_FILES} == {}


def test_every_folder_is_a_package():
    """Check for `__init__.py`: a wheel omits folders without it."""
    folders = {path.parent for path in (ROOT / "vtcav_jax").rglob("*.py")}
    assert [folder for folder in folders if not (folder / "__init__.py").exists()] == []


def test_all_modules_can_be_imported_without_optional_packages():
    modules = [name for name in module_files() if name not in (*NEEDS_EXTRA, "vtcav_jax.__main__")]
    code = f"""
import importlib, sys
sys.modules |= dict.fromkeys({OPTIONAL})  # None: importing raises ModuleNotFoundError
for name in {modules}:
    importlib.import_module(name)
"""
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
