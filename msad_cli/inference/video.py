"""Videos: frames in, drawn frames out. PyAV, which the extra `video` brings, decodes and encodes."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from msad_cli.data.images.decode import REPLACE, most_pixels, scoped
from msad_cli.errors import DataError
from msad_cli.inference.predictor import Frames
from msad_cli.system.extras import missing_extra
from msad_cli.system.files import explained, replacing

if TYPE_CHECKING:
    from av import VideoFrame

CONTAINERS = "mov,mp4,matroska,webm,avi,mpeg,mpegts,mpegvideo,asf,flv"
"""What is tried on a file, whatever its name is. FFmpeg knows more, such as lists that name other files and hosts."""
USUAL_RATE = Fraction(25)
"""Frames a second where a file does not tell."""
ENCODERS = ("libx264", "mpeg4")
"""The first that FFmpeg was built with writes. The second is always there."""
FINEST_RATE = 60_000
"""The largest numerator of a rate that both can write."""


def need_decoder() -> None:
    """Does nothing where PyAV is installed.

    Raises:
        UsageError: it is not.
    """
    try:
        import av  # noqa: F401
    except ImportError:
        raise missing_extra("av", "video") from None


class Video:
    """A video that is open for reading.

    Attributes:
        rate: frames a second.

    Raises:
        DataError: the file is missing, no video, or its frames have too many pixels.
    """

    def __init__(self, path: Path) -> None:
        import av

        self._path = path
        if not path.is_file():  # opening a pipe would wait for a writer
            raise DataError(f"{path}: not a file", REPLACE, code="not-a-file")
        with ExitStack() as opened, video_errors(path):
            # An open file, not its name: some names are commands to FFmpeg.
            file = opened.enter_context(path.open("rb"))
            self._container = opened.enter_context(av.open(file, "r", options={"format_whitelist": CONTAINERS}))
            if not self._container.streams.video:
                raise DataError(f"{path}: a video without images", REPLACE, code="video-unreadable")
            self._opened = opened.pop_all()
        self._stream = self._container.streams.video[0]
        self.rate = self._stream.average_rate or self._stream.guessed_rate or USUAL_RATE

    def frames(self, every: int = 1) -> Frames:
        """The first of each `every` frames, RGB and upright, with its number from 0; then the video is closed.

        Raises:
            DataError: it cannot be decoded further, or a frame has too many pixels.
        """
        return frames_of(self._path, self._opened, self._container, self._stream, every)


def frames_of(path: Path, opened: ExitStack, container: Any, stream: Any, every: int) -> Frames:
    """The first of each `every` frames of an open container, which is closed then; see `Video.frames`."""
    number = -1
    # Closed here and not by who opened it: another thread may still be asking for a frame.
    with opened, video_errors(path, lambda: f" after {number + 1} frames"):
        for number, frame in enumerate(container.decode(stream)):
            if frame.width * frame.height > most_pixels():
                raise DataError(
                    f"{path}: frames of {frame.width}×{frame.height} exceed the limit of {most_pixels()} "
                    "pixels; --max-pixels raises the limit",
                    REPLACE,
                    code="video-too-large",
                )
            if number % every == 0:
                yield number, _upright(frame)
        if number < 0:
            raise DataError(f"{path}: a video without frames", REPLACE, code="video-unreadable")


@contextmanager
def writing_video(path: Path, rate: Fraction) -> Iterator[Callable[[Image.Image], None]]:
    """Takes the frames of an .mp4 file, `rate` of them a second, which is there when the context ends without an error.

    All get the size of the first one, with an even number of pixels each way, as encoders want.

    Raises:
        OutputError: the operating system refuses.
    """
    import av

    with replacing(path) as temporary:
        with explained(path):
            container = av.open(str(temporary), "w", format="mp4")
        with container:
            encoder = next(each for each in ENCODERS if each in av.codecs_available)
            stream: Any = container.add_stream(encoder, rate=1 / (1 / rate).limit_denominator(FINEST_RATE))
            stream.pix_fmt = "yuv420p"

            def write(image: Image.Image) -> None:
                if not stream.codec_context.is_open:
                    stream.width, stream.height = image.width + image.width % 2, image.height + image.height % 2
                with explained(path):
                    container.mux(stream.encode(av.VideoFrame.from_image(_fitted(image, stream.width, stream.height))))

            yield write
            with explained(path):
                container.mux(stream.encode())


@contextmanager
def video_errors(path: Path, where: Callable[[], str] = str) -> Iterator[None]:
    """Turns what FFmpeg says of a file into a `DataError`, with words on how far it was read."""
    import av

    try:
        yield
    except (av.FFmpegError, OSError) as error:
        raise DataError(
            f"{path}: cannot be decoded{where()} ({error.strerror})", REPLACE, code="video-unreadable"
        ) from None


def _upright(frame: "VideoFrame") -> Image.Image:
    image: Image.Image = frame.to_image()
    return image.rotate(frame.rotation, expand=True) if frame.rotation else image


def _fitted(image: Image.Image, width: int, height: int) -> Image.Image:
    """The frame with these sides: a missing pixel at the right or below is black, other sizes are resized."""
    if image.width + image.width % 2 != width or image.height + image.height % 2 != height:
        return image.resize((width, height))
    with scoped:
        return image.crop((0, 0, width, height))
