"""Where the cache is: named, usual, and where neither can be written."""

import errno
import os
import tempfile
import warnings
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest

from msad_cli.cli.app import run
from msad_cli.errors import OutputError, UsageError
from msad_cli.models.weights import download as weights
from msad_cli.system.cache_folder import CacheWarning, cache_folder, keep_text, unwritable


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The system's temporary folder."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def unusable(tmp_path: Path) -> Path:
    """A file in a folder's place: root, too, cannot write below it."""
    (tmp_path / "file").touch()
    return tmp_path / "file" / "cache"


def test_named_then_usual_then_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MSAD_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder() == tmp_path / "home" / ".cache" / "msad"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "msad"
    monkeypatch.setenv("MSAD_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"
    assert not list(tmp_path.glob("[!t]*"))  # asking makes nothing


@pytest.mark.parametrize("variable", ["MSAD_CACHE", "XDG_CACHE_HOME", "HOME"])
def test_where_it_cannot_be_written_a_temporary_one_is_taken_and_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, temporary: Path, variable: str
) -> None:
    monkeypatch.delenv("MSAD_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv(variable, str(unusable(tmp_path)))
    with pytest.warns(CacheWarning, match=r"file is a file.*export MSAD_CACHE=") as said:
        found = cache_folder()
    assert found.parent == temporary
    assert found.stat().st_mode & 0o077 == 0  # nobody else reads or writes it
    assert cache_folder() == found  # filters make errors of warnings: a second one would end this test
    assert len(said) == 1
    keep_text(found / "a" / "b.json", "{}")
    assert (found / "a" / "b.json").read_text() == "{}"


def test_a_user_without_a_home(monkeypatch: pytest.MonkeyPatch, temporary: Path) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("MSAD_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    with pytest.warns(CacheWarning, match="no home"):
        assert cache_folder().parent == temporary


def test_rights_are_asked_of_the_nearest_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(os, "access", lambda path, _: asked.append(path))  # None: no
    assert unwritable(tmp_path / "a" / "b") == f"{tmp_path} is not writable"
    assert asked == [tmp_path]


def test_anothers_folder_of_that_name_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, temporary: Path
) -> None:
    (tmp_path / "trap").mkdir()
    (temporary / f"msad-cache-{os.getuid()}").symlink_to(tmp_path / "trap")
    monkeypatch.setenv("MSAD_CACHE", str(unusable(tmp_path)))
    with pytest.warns(CacheWarning):
        keep_text(cache_folder() / "a.json", "{}")
    assert not list((tmp_path / "trap").iterdir())


def test_a_command_works_and_says_it_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], temporary: Path
) -> None:
    monkeypatch.setenv("MSAD_CACHE", str(unusable(tmp_path)))
    assert run(["data", "check", "demo", "--size", "64,64"]) == 0
    printed = capsys.readouterr().err
    assert printed.count("MSAD_CACHE=") == 1
    assert "Warning" not in printed
    assert len(list(temporary.iterdir())) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert run(["data", "check", "demo", "--size", "64,64"]) == 0
    assert "MSAD_CACHE" not in capsys.readouterr().err


def test_a_full_disk_names_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "a.json")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OutputError, match=r"the cache cannot be written: .*No space left") as caught:
        keep_text(tmp_path / "a.json", "{}")
    assert "MSAD_CACHE" in caught.value.hint


class Published:
    """Weights whose download ends in an error, or answers where it was to keep them."""

    url = "https://example.org/weights.pth"

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error

    def get_state_dict(self, **where: Any) -> dict[str, Any]:
        if self.error is not None:
            raise self.error
        return where


@pytest.mark.parametrize(
    ("error", "code", "hint"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "weights-not-kept", "free space"),
        (PermissionError(errno.EACCES, "Permission denied"), "weights-not-kept", "MSAD_CACHE"),
        (URLError(OSError(errno.ECONNREFUSED, "refused")), "download-failed", "without a network"),
        (TimeoutError("timed out"), "download-failed", "without a network"),
    ],
)
def test_a_full_or_closed_disk_is_no_matter_of_the_network(error: Exception, code: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        weights.of_torchvision(Published(error))
    assert caught.value.code == code
    assert hint in caught.value.hint


def test_weights_are_kept_in_msads_cache_where_torchs_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MSAD_CACHE", str(tmp_path / "own"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    assert "model_dir" not in weights.of_torchvision(Published())
    monkeypatch.setenv("TORCH_HOME", str(unusable(tmp_path)))
    assert weights.of_torchvision(Published())["model_dir"] == str(tmp_path / "own" / "weights")
