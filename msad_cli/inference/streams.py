"""Cameras and addresses as inputs: opened where somebody typed them, never because a file or a list names them."""

import base64
import io
import re
import urllib.error
import urllib.request
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from PIL import Image, ImageOps

from msad_cli.data.images.decode import IMAGE_SUFFIXES, scoped
from msad_cli.data.images.in_memory import rgb_image
from msad_cli.errors import DataError
from msad_cli.inference.inputs import Input
from msad_cli.inference.predictor import Frames
from msad_cli.inference.video import USUAL_RATE, frames_of, video_errors

CAMERA = re.compile(r"\d{1,3}")
SCHEMES = ("http", "https", "rtsp", "rtsps", "rtmp", "udp")
SECONDS = 20
"""Until a host that says nothing is taken to be gone."""
LARGEST = 200 * 2**20
"""Bytes of an image that is fetched."""
CHECK = "check the address, and that the host can be reached from here"


def is_stream(name: str) -> bool:
    """Whether a typed input is the number of a camera or an address, and no file of that name is here."""
    scheme, separator, _ = name.partition("://")
    known = bool(CAMERA.fullmatch(name)) or bool(separator and scheme.lower() in SCHEMES)
    return known and not Path(name).exists()


def open_address(name: str) -> Input:
    """What a camera's number or an address stands for; the image behind an address that ends as images do is fetched.

    Raises:
        DataError: the image cannot be fetched or is none.
    """
    if CAMERA.fullmatch(name):
        return Input(Path(f"camera {name}"), Path(f"camera-{name}"), stream=name)
    parts = urlsplit(name)
    last = PurePosixPath(unquote(parts.path)).name or parts.hostname or "stream"
    # Who reads a log shall not read a password.
    shown = Path(f"{parts.hostname}{parts.path}")
    if parts.scheme.lower() in ("http", "https") and PurePosixPath(last).suffix.lower() in IMAGE_SUFFIXES:
        return Input(shown, Path(last), image=_fetched(name, str(shown)))
    return Input(shown, Path(last), stream=name)


def _request(address: str) -> urllib.request.Request:
    """The address without its user and password, which go into the header that servers read."""
    parts = urlsplit(address)
    request = urllib.request.Request(parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl())
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        request.add_header("Authorization", f"Basic {base64.b64encode(pair.encode()).decode()}")
    return request


def _fetched(address: str, shown: str) -> Image.Image:
    try:
        with urllib.request.urlopen(_request(address), timeout=SECONDS) as answer:
            content = answer.read(LARGEST + 1)
    except (urllib.error.URLError, OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise DataError(f"{shown}: cannot be fetched ({reason})", CHECK, code="address-unreachable") from None
    if len(content) > LARGEST:
        raise DataError(f"{shown}: more than {LARGEST // 2**20} MiB", CHECK, code="address-too-large")
    try:
        with scoped, Image.open(io.BytesIO(content)) as image:
            return rgb_image(ImageOps.exif_transpose(image), shown)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{shown}: no image ({str(error)[:100]})", CHECK, code="image-unreadable") from None


class Stream:
    """A camera or an address that is open for reading; frames come until it ends, or Ctrl-C ends it.

    Attributes:
        rate: frames a second, as it says.

    Raises:
        DataError: it cannot be opened, or has no images.
    """

    def __init__(self, source: Input) -> None:
        import av

        self._path = source.path
        camera = CAMERA.fullmatch(source.stream) is not None
        name = f"/dev/video{source.stream}" if camera else source.stream
        with ExitStack() as opened, video_errors(self._path):
            container: Any = opened.enter_context(
                av.open(name, "r", format="v4l2" if camera else None, timeout=SECONDS)
            )
            if not container.streams.video:
                raise DataError(f"{self._path}: a stream without images", CHECK, code="video-unreadable")
            self._opened = opened.pop_all()
        self._container, self._stream = container, container.streams.video[0]
        self.rate = self._stream.average_rate or self._stream.guessed_rate or USUAL_RATE

    def frames(self, every: int = 1) -> Frames:
        """As `Video.frames`."""
        return frames_of(self._path, self._opened, self._container, self._stream, every)
