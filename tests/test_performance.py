"""What makes steps of small networks fast, by what can be counted rather than timed."""

import platform
import subprocess
import sys

import pytest

# Blocks of 20 and 28 MB come and go. Pages that the system hands out anew are counted, once the heap has grown.
CODE = """
import resource, sys
import torch
from lightning_repshape.performance import keep_freed_memory

torch.set_num_threads(1)
if sys.argv[1] == "kept":
    keep_freed_memory()
for number in range(15):
    if number == 5:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    one, other = torch.ones(5 * 2**20), torch.ones(5 * 2**20)
    another = torch.ones(7 * 2**20)
    del one, other, another
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these thresholds")
def test_freed_memory_is_not_handed_back_and_forth() -> None:
    def faults(which: str) -> int:
        command = [sys.executable, "-c", CODE, which]
        return int(subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout)

    assert faults("kept") < 0.2 * faults("released")
