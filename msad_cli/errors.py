"""The errors a user can cause, each with its exit code, the code of its kind and the next thing to do."""


class MsadError(Exception):
    """A failure that is explained to the user instead of traced.

    Args:
        message: what was found and where (file, id, flag).
        hint: what to type or do next; may be empty.
        code: the kind of mistake, for programs; it stays what it is when the words change.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "", *, code: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code


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


class UnmetBudgetError(MsadError):
    """No model meets the budget that the user gave."""

    exit_code = 9
