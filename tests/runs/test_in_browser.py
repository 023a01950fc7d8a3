"""report.html in a real browser: a silent console, light or dark as the reader's system is, and a print."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from support.pages import family

from msad_cli.models.detector import Detector
from msad_cli.runs.pages.run_page import write_run_page
from msad_cli.runs.pages.skeleton import document

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), "")
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--enable-logging=stderr")
LIGHT, DARK = (f"--blink-settings=preferredColorScheme={number}" for number in (1, 0))
PAPER = {LIGHT: (255, 255, 255), DARK: (13, 17, 23)}

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no Chromium here: apt-get install chromium")


def opened(page: Path, *flags: str) -> list[str]:
    """Opens a page; what the browser says on its console."""
    own = f"--user-data-dir={page.parent / 'profile'}"
    done = subprocess.run(
        [CHROMIUM, *FLAGS, own, *flags, page.as_uri()], capture_output=True, text=True, check=True, timeout=120
    )
    return [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def seen(page: Path, scheme: str, width: int) -> tuple[NDArray[np.uint8], list[str]]:
    """A screenshot (1500, width, 3), and the console."""
    image = page.with_name("seen.png")
    said = opened(page, scheme, f"--window-size={width},1500", f"--screenshot={image}")
    with Image.open(image) as pixels:
        return np.asarray(pixels.convert("RGB")), said


@pytest.fixture
def page(tmp_path: Path, student: Detector, teacher: Detector) -> Path:
    return write_run_page(family(tmp_path, student, teacher))


@pytest.mark.parametrize(("scheme", "width"), [(LIGHT, 1200), (DARK, 500)])
def test_a_page_is_light_or_dark_and_says_nothing(page: Path, scheme: str, width: int) -> None:
    """Its border is the paper, its text is far from it, and the bars and lines have the models' colours."""
    pixels, said = seen(page, scheme, width)
    assert said == []
    assert tuple(pixels[:, 2].reshape(-1, 3).max(axis=0)) == PAPER[scheme]
    assert tuple(pixels[:, 2].reshape(-1, 3).min(axis=0)) == PAPER[scheme]
    distance = np.abs(pixels.astype(int) - PAPER[scheme]).sum(axis=2)
    assert distance[:120].max() > 500  # the heading
    for colour in ((31, 119, 180), (255, 127, 14), (44, 160, 44)):
        assert (pixels == colour).all(axis=2).sum() > 100


def test_a_page_prints(page: Path) -> None:
    """A PDF with more in it than an empty page, whose file has 1 kB."""
    printed = page.with_name("printed.pdf")
    assert opened(page, DARK, f"--print-to-pdf={printed}") == []
    assert printed.read_bytes().startswith(b"%PDF")
    assert printed.stat().st_size > 10_000


def test_what_a_page_would_load_is_refused_and_said(tmp_path: Path) -> None:
    """Without this the tests above could not fail; nothing listens at this address either."""
    page = tmp_path / "page.html"
    page.write_text(document("t", '<img src="http://127.0.0.1:9/x.png"><script>document.title = 1</script>'))
    said = seen(page, LIGHT, 500)[1]
    assert len([line for line in said if "Content Security Policy" in line]) == 2
