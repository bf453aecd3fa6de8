from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
PROGRAM = """
import os, sys
import romacli.__main__
print(os.environ["OMP_WAIT_POLICY"], "torch" in sys.modules)
"""


@pytest.mark.parametrize(
    ("given", "found"),
    [({}, "PASSIVE False"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE False")],
    ids=["unset", "set"],
)
def test_what_torch_reads_when_it_loads_is_set_before_and_only_where_nothing_is(given, found):
    known = {key: value for key, value in os.environ.items() if key != "OMP_WAIT_POLICY"}
    words = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(words, env={**known, **given}, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == found
