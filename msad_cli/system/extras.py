"""Packages that come with extras."""

from msad_cli.errors import UsageError


def how_to_install(extra: str) -> str:
    """The command, as it works today: on the index the name msad is somebody else's."""
    return f"pip install '.[{extra}]' in the clone of msad"


def missing_extra(package: str, extra: str) -> UsageError:
    """What to say where a package of an extra is not installed."""
    return UsageError(f"{package} is not installed", how_to_install(extra))
