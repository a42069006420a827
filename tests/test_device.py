"""Device handling, proved without a GPU on a pretended device; the proofs are in tests/device.

Each file runs in its own process, because torch's autograd engine learns its devices at its first call.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from so3k_md.builds import require_compiler, tool
from so3k_md.errors import So3kError

HERE = Path(__file__).parent
FILES = sorted((HERE / "device").glob("test_*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_on_a_pretended_device(file):
    if sys.platform != "linux":
        pytest.skip("the pretended device protects its memory as Linux does")
    try:
        require_compiler("the pretended device")
        tool("ninja", extra="kernels")
    except So3kError as error:
        pytest.skip(str(error))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-p", "no:cacheprovider", str(file)]
    run = subprocess.run(
        words, env=environment | {"SO3K_PRETEND": "1"}, cwd=HERE.parent, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout + run.stderr
