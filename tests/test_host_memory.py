"""Memory of the process, measured by the page faults of forward passes."""

import platform
import subprocess
import sys

import pytest

PASSES, MEBIBYTES = 20, 64
PAGES = PASSES * MEBIBYTES * 2**20 // 4096
# A product of which an intermediate result is larger than what glibc keeps by itself
SCRIPT = f"""
import resource, sys
from vtcav_jax.host_memory import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
import jax
import jax.numpy as jnp
x = jnp.ones(({MEBIBYTES} * 256, 1))
function = jax.jit(lambda x: (x @ x[:1024].T @ x[:1024]).sum())
for _ in range(10):
    function(x).block_until_ready()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range({PASSES}):
    function(x).block_until_ready()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has the setting")
def test_forward_passes_use_the_same_memory_again():
    faults = {
        word: int(subprocess.run([sys.executable, "-c", SCRIPT, word], capture_output=True, check=True).stdout)
        for word in ("keep", "return")
    }
    assert faults["return"] > PAGES  # what is measured happens without the setting
    assert faults["keep"] < PAGES / 2  # some passes overlap and need one block more
