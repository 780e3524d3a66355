"""What makes steps of small networks fast, by what can be counted rather than timed."""

import platform
import subprocess
import sys

import pytest

# Twenty blocks of 20 MB come and go; pages of 4 KB that the system hands out again each time are counted.
CODE = """
import resource, sys
import torch
from lightning_repshape.performance import keep_freed_memory

torch.set_num_threads(1)
if sys.argv[1] == "kept":
    keep_freed_memory()
torch.ones(5 * 2**20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
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
