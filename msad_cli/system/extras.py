"""Packages that come with extras."""

from msad_cli.errors import UsageError


def missing_extra(package: str, extra: str) -> UsageError:
    """What to say where a package of an extra is not installed."""
    return UsageError(f"{package} is not installed", f"pip install 'msad[{extra}]'")
