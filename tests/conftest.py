"""The strictest jax: no silent broadcasting between ranks, no silent promotion between types."""

import itertools
import shutil
import signal
from pathlib import Path

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")


ROOT = Path(__file__).parent.parent
LONG_MODULES = Path(__file__).parent / "long_modules.txt"  # in the order in which they start
MAPPINGS = Path("/proc/self/maps")  # of Linux, which allows a process 65,530; each compiled program takes several
MAX_MAPPINGS = 20_000
TESTS_BETWEEN_CHECKS = 20
_TESTS = itertools.count(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the long modules, so that no core is idle while another runs the last one."""
    ranks = {ROOT / line: i for i, line in enumerate(LONG_MODULES.read_text(encoding="utf-8").split())}
    items.sort(key=lambda item: ranks.get(item.path, len(ranks)))


@pytest.fixture(autouse=True)
def _bounded_programs():
    """Forget compiled programs before they fill the memory mappings of the process, which would end it."""
    yield
    is_checked = next(_TESTS) % TESTS_BETWEEN_CHECKS == 0 and MAPPINGS.exists()
    if is_checked and MAPPINGS.read_bytes().count(b"\n") > MAX_MAPPINGS:
        jax.clear_caches()


@pytest.fixture
def usual_promotion():
    """For float64 and bfloat16, since flax's LayerNorm mixes float32 in, and for Adam, whose step number is an int."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture
def float64(usual_promotion):
    with jax.enable_x64(True):
        yield


@pytest.fixture
def interruptible():
    """What is started in a shell's background ignores Ctrl-C, and so would what it starts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def browser():
    """A Chromium without a window, where there is one."""
    api = pytest.importorskip(
        "playwright.sync_api", reason="opening the page needs playwright (pip install playwright)"
    )
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        pytest.skip("opening the page needs a Chromium (apt-get install chromium)")
    with api.sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
