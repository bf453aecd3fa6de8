"""Arrays of objects as saved by NumPy, read without executing anything in them."""

from __future__ import annotations

import codecs
import io
import pickle
import zipfile
from pathlib import Path
from typing import IO, Any, ClassVar

import numpy as np

from romacli.errors import InputError

DAMAGE = (OSError, ValueError, EOFError, pickle.UnpicklingError, TypeError, AttributeError, IndexError)


def read_array(file: IO[bytes]) -> Any:
    """Read an .npy file; objects may be arrays, numbers and text.

    Raises:
        One of DAMAGE: it is truncated, of another format, or contains something else.
    """
    version = np.lib.format.read_magic(file)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    _, _, dtype = read_header(file)
    if dtype.hasobject:
        return _DataOnly(file, encoding="latin1").load()
    file.seek(0)
    return np.lib.format.read_array(file, allow_pickle=False)


def read_arrays(path: Path, keys: tuple[str, ...]) -> list[Any]:
    """Read the arrays under the given keys of an .npz file.

    Raises:
        InputError: the file is missing, truncated, lacks a key or contains more than arrays, numbers and text.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return [read_array(io.BytesIO(archive.read(f"{key}.npy"))) for key in keys]
    except KeyError as error:
        raise InputError(f"{path} lacks {error.args[0]}. Fetch it again.") from error
    except (*DAMAGE, zipfile.BadZipFile) as error:
        raise InputError(f"{path} cannot be read as arrays: {_reason(error)}. Fetch it again.") from error


def read_pickle(path: Path) -> Any:
    """Read a pickle of arrays, numbers, text and Python's built-in containers of these.

    Raises:
        InputError: the file is missing, truncated or contains something else.
    """
    try:
        with path.open("rb") as file:
            return _DataOnly(file, encoding="latin1").load()
    except DAMAGE as error:
        raise InputError(f"{path} cannot be read as data: {_reason(error)}. Fetch it again.") from error


def _reason(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


class _DataOnly(pickle.Unpickler):
    """Loads arrays, numbers and text; refuses every other name, so no code can be called."""

    _PARTS: ClassVar[dict[str, Any]] = {
        "ndarray": np.ndarray,
        "dtype": np.dtype,
        "_reconstruct": np.zeros(1).__reduce__()[0],
        "scalar": np.float64(0).__reduce__()[0],
        "encode": codecs.encode,
    }
    _MODULES = ("numpy", "numpy.core.multiarray", "numpy._core.multiarray", "_codecs")

    def find_class(self, module: str, name: str) -> Any:
        if module not in self._MODULES or name not in self._PARTS:
            raise pickle.UnpicklingError(f"it wants to call {module}.{name}, which no list of arrays needs")
        return self._PARTS[name]
