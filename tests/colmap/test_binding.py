"""Side effects of importing pycolmap, in separate processes."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, timeout=60)


def test_importing_the_room_does_not_import_pycolmap():
    files = ("colmap.binding", "colmap.database", "colmap.poses", "colmap.verify", "mapping.reconstruct")
    code = "".join(f"import romacli.{file}\n" for file in files)
    assert run(code + "import sys; assert 'pycolmap' not in sys.modules").returncode == 0


def test_png_files_can_be_written_after_pycolmap_came_in(tmp_path):
    path = tmp_path / "a.png"
    done = run(
        "from romacli.colmap.binding import load_pycolmap; load_pycolmap()\n"
        f"import cv2, numpy; cv2.imwrite({str(path)!r}, numpy.zeros((50, 50, 3), numpy.uint8))"
    )
    assert done.returncode == 0, done.stderr
    assert path.stat().st_size > 0


def test_a_handler_of_sigterm_outlives_the_import():
    done = run(
        "import os, signal, sys\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\n"
        "from romacli.colmap.binding import load_pycolmap; load_pycolmap()\n"
        "os.kill(os.getpid(), signal.SIGTERM)"
    )
    assert done.returncode == 7
    assert done.stderr == ""


def test_sigterm_without_a_handler_ends_the_process_without_a_stack_trace():
    done = run(
        "import os, signal\n"
        "from romacli.colmap.binding import load_pycolmap; load_pycolmap()\n"
        "os.kill(os.getpid(), signal.SIGTERM)"
    )
    assert done.returncode == -signal.SIGTERM
    assert done.stderr == ""
