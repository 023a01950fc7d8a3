"""How a script here ends by a user's mistake: as msad itself does."""

import sys
from collections.abc import Callable

from msad_cli.cli.app import complain
from msad_cli.errors import MsadError


def told(main: Callable[[], None]) -> None:
    """Runs a script; an error that msad explains becomes its message, hint and exit code instead of a traceback."""
    try:
        main()
    except MsadError as error:
        sys.exit(complain(error))
