"""Errors for users, each a sentence that names the problem and says what to do.

class                exit code
RomacliError                 1  an expected failure
├── UsageError               2  options that contradict each other or the stored job
│   ├── PairsError           2  a pair list that is malformed or names unknown images
│   └── SettingsDifferError  2  an output folder made with other settings
├── InputError               3  nothing could start: no folder, no images, no device
│   ├── ImageError           3  a photograph that cannot be read
│   └── WeightsError         3  a checkpoint that is missing, damaged or of another model
├── EstimationError          1  a library fails on one pair or photograph; the rest continues
├── PartialError             4  finished, with failures listed
├── NothingFoundError        5  nothing matched, or no model was built
├── StoreError               6  an output file that is corrupt, foreign or not writable
└── BusyError               75  try again later: locked, or out of memory
"""

from __future__ import annotations

# By torch, CUDA, Python and the dynamic linker.
_NO_MEMORY = ("out of memory", "can't allocate", "can't start new thread", "failed to map segment")


class RomacliError(Exception):
    """An expected failure; the message says what went wrong and what to do."""

    exit_code = 1


class UsageError(RomacliError):
    """The options contradict each other or the stored job."""

    exit_code = 2


class PairsError(UsageError):
    """A pair list is malformed or names unknown images."""


class SettingsDifferError(UsageError):
    """The output folder was made with other settings."""


class InputError(RomacliError):
    """Nothing could start: no folder, no images, no device."""

    exit_code = 3


class ImageError(InputError):
    """A photograph cannot be read."""


class WeightsError(InputError):
    """A checkpoint is missing, damaged or of another model."""


class EstimationError(RomacliError):
    """A library fails on the points of one pair, or on one photograph."""


class PartialError(RomacliError):
    """Finished, with failures; the message lists them."""

    exit_code = 4


class NothingFoundError(RomacliError):
    """Nothing matched, or no model was built."""

    exit_code = 5


class StoreError(RomacliError):
    """An output file is corrupt, foreign or not writable."""

    exit_code = 6


class BusyError(RomacliError):
    """A resource is temporarily in use or exhausted; try again later."""

    exit_code = 75


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error, or one that led to it, means that memory is exhausted; libraries have no type for this."""
    words = str(error)
    return (
        isinstance(error, MemoryError)
        or (isinstance(error, RuntimeError | ImportError) and any(phrase in words for phrase in _NO_MEMORY))
        or (error.__context__ is not None and is_out_of_memory(error.__context__))
    )
