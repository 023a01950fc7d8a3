"""Frames of a video as image files: drawn out once, and cached."""

import hashlib
import os
import tempfile
from pathlib import Path

from msad_cli.inference.video import Video
from msad_cli.system.cache_folder import cache_folder, file_state, writing_cache

SECONDS = 1
"""From one frame that is taken to the next: neighbours show almost the same."""
MOST = 10_000
"""Frames of a video; with one a second those of its first 2 h 47 min."""
QUALITY = 95
"""Of the JPEG files. Pillow's scale ends there; above it files grow and little is gained."""


def frames_as_images(video: Path) -> list[Path]:
    """JPEG files of a frame a second, at most `MOST`, named by their numbers in the video.

    They lie in the user's cache below `frames/`, by the video's place, size and time of change: who asks again finds
    them there.

    Raises:
        DataError: the file is missing, no video, or cannot be decoded to its end.
        OutputError: the cache cannot be written.
    """
    drawn = (os.path.realpath(video), *file_state(video), SECONDS, MOST, QUALITY)
    folder = cache_folder() / "frames" / hashlib.sha256(repr(drawn).encode()).hexdigest()[:16]
    if not folder.is_dir():
        with writing_cache():
            folder.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix="writing-", dir=folder.parent) as temporary:
                written = Path(temporary) / "frames"
                _draw_out(video, written)
                if not folder.is_dir():  # another process may have been as fast
                    written.replace(folder)
    return sorted(folder.glob("*.jpg"))


def _draw_out(video: Path, folder: Path) -> None:
    folder.mkdir()
    opened = Video(video)
    frames = opened.frames(max(1, round(opened.rate * SECONDS)))
    for _, (number, image) in zip(range(MOST), frames, strict=False):
        image.save(folder / f"{number:09}.jpg", quality=QUALITY)
