"""Builds the site of README, changes, examples and these pages: `python docs/make_site.py [FOLDER]`, else into `site`.

It needs the extra `docs`, and no network. Pages lie as they do in the repository, so that a link is right on the site
and on a repository's host. One that leads nowhere is an error.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import msad_cli

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "docs", "examples")
"""What is read, and what that links to."""


def main() -> None:
    """Builds, and ends as the builder does."""
    site = Path(sys.argv[1] if len(sys.argv) > 1 else "site").absolute()
    with tempfile.TemporaryDirectory() as folder:
        build, pages = Path(folder), Path(folder) / "pages"
        pages.mkdir()
        for name in PAGES:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
            copy(ROOT / name, pages / name)
        (pages / "docs" / "reference.md").write_text(reference(), encoding="utf-8")
        shutil.copy2(ROOT / "docs" / "site.toml", build / "zensical.toml")
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}
        command = [sys.executable, "-m", "zensical", "build", "--strict"]
        done = subprocess.run(command, cwd=build, env=environment, check=False)
        if not done.returncode:
            shutil.copytree(build / "site", site, dirs_exist_ok=True)
    sys.exit(done.returncode)


def reference() -> str:
    """The page of the Python API, functions first; the builder puts what docstrings say in the place of each line."""
    names = sorted(msad_cli.__all__, key=lambda name: name[0].isupper())
    return "\n\n".join(["# Python reference", *(f"::: msad_cli.api.{name}" for name in names)])


if __name__ == "__main__":
    main()
