"""Import pycolmap late, after libraries with a conflicting zlib, and with logging reduced."""

from __future__ import annotations

import signal
import sys
import threading
from typing import Any

QUIET, TALKATIVE = 3, 0


def load_pycolmap(*, verbose: bool = False) -> Any:
    """Return the pycolmap module, its log reduced to what ends the process unless `verbose`.

    numpy, h5py and cv2 come first: when pycolmap is the first to load its libraries, cv2.imwrite of a PNG
    aborts the process in zlib (pycolmap 4.2.1, OpenCV 5.0).
    """
    if "pycolmap" not in sys.modules:
        import cv2  # noqa: F401
        import h5py  # noqa: F401
        import numpy  # noqa: F401
        import pycolmap  # noqa: F401

        _take_back_sigterm()
    import pycolmap

    pycolmap.logging.minloglevel = TALKATIVE if verbose else QUIET
    return pycolmap


def _take_back_sigterm() -> None:
    """Undo what glog does at import: it answers SIGTERM with a stack trace, over Python's own handler."""
    handler = signal.getsignal(signal.SIGTERM)
    if handler is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)
