"""The errors a user can cause, each with its exit code and the next thing to do."""


class MsadError(Exception):
    """A failure that is explained to the user instead of traced.

    Args:
        message: what was found and where (file, id, flag).
        hint: what to type or do next; may be empty.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(MsadError):
    """Wrong usage: an unknown value, a missing file argument, a result that exists."""

    exit_code = 2


class OutputError(UsageError):
    """A file cannot be written: no right, no such folder, no space."""


class DataError(MsadError):
    """The data: nothing found, broken JSON, no boxes, missing images."""

    exit_code = 3


class AbsentSplitError(DataError):
    """A set has no train or no val, while the other may be there."""


class ModelFileError(MsadError):
    """The model file: not safetensors, truncated, another tool's, wrong classes."""

    exit_code = 4


class DeviceError(MsadError):
    """The device: unusable, or out of memory at batch 1."""

    exit_code = 5


class TrainingError(MsadError):
    """Training failed; the last good checkpoint is kept."""

    exit_code = 6


class PartialFailureError(MsadError):
    """Some inputs failed, the rest was done."""

    exit_code = 7


class GateMissedError(MsadError):
    """A gate that the user asked for was missed."""

    exit_code = 8
