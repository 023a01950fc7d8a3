"""What both trainings and `msad data check` do with a check: cache it, show what it found, refuse an unusable set."""

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from msad_cli import __version__
from msad_cli.data.annotations.check import Report, check
from msad_cli.data.annotations.records import Records
from msad_cli.data.images.decode import most_pixels
from msad_cli.errors import DataError, UsageError
from msad_cli.frame import Resolution
from msad_cli.system.cache_folder import cache_folder, file_state
from msad_cli.system.files import fingerprint, write_text

REVISION = 2
"""Of what is checked: it grows when a version learns to see more."""


def checked(
    splits: Mapping[str, Records],
    resolution: Resolution,
    ks: Sequence[int],
    announce: Callable[[str], None],
    *,
    anew: bool = False,
    decode: bool = False,
) -> Report:
    """The cached check of a set, if neither annotations nor images changed since; else a new one, cached now.

    Args:
        splits: `train`, `val` or both.
        resolution, ks: HR size and reductions.
        announce: is told before images are looked at, which takes minutes in a large set.
        anew: whatever is cached.
        decode: whether all pixels are decoded.
    """
    cached = _place(splits, resolution, ks)
    if cached is not None and not anew:
        try:
            return Report.from_json(json.loads(cached.read_bytes()))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            pass  # never cached, or not by this version
    images = " + ".join(str(len(each.image_ids)) for each in splits.values())
    announce(f"checking {images} images of {', '.join(str(each.folder) for each in splits.values())}")
    report = check(splits, resolution, ks, decode)
    if cached is not None:
        with contextlib.suppress(UsageError):  # a cache that cannot be written only costs time
            write_text(cached, json.dumps(report.to_json()))
    return report


def _place(splits: Mapping[str, Records], resolution: Resolution, ks: Sequence[int]) -> Path | None:
    """The file of a check in the user's cache: its name says of what; None where there is no cache."""
    digest = hashlib.blake2b(digest_size=20)
    try:
        for name, each in splits.items():
            file, folder = (str(each.file), fingerprint(each.file)), os.path.realpath(each.folder)
            digest.update(repr((name, each.task, *file, folder, each.categories, each.scheme)).encode())
            for file_name in each.file_names.tolist():
                digest.update(repr((file_name, file_state(each.folder / file_name))).encode())
        digest.update(repr((__version__, REVISION, resolution, tuple(ks), most_pixels())).encode())
        return cache_folder() / "checks" / f"{digest.hexdigest()}.json"
    except (OSError, RuntimeError):
        return None


def refuse_unusable(report: Report, path: str, following: str, strict: bool = False) -> None:
    """Does nothing to a set that can be used.

    Args:
        report: the check's.
        path: what was checked, as it is typed.
        following: what to type next.
        strict: whether problems that are not fatal count too.

    Raises:
        DataError: there is a fatal problem, or with `strict` any.
    """
    counted = [each for each in report.problems if each[1].fatal or strict]
    if not counted:
        return
    name, first = counted[0]
    file = next((split.file for split in report.splits if split.name == name), path)
    total = sum(problem.count for _, problem in counted)
    more = f"; {total} {'' if strict else 'fatal '}problems in all" if total > first.count else ""
    advice = f"{first.advice}; " if first.advice else ""
    raise DataError(f"{file}: {first.in_words()}{more}", f"{advice}{following}", code=first.code)
