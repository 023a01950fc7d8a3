"""How a script here ends by a user's mistake: as msad itself does."""

import subprocess
import sys
from collections.abc import Callable

from msad_cli.cli.app import complain
from msad_cli.errors import MsadError


def told(main: Callable[[], None]) -> None:
    """Runs a script; an error that msad explains becomes its message, hint and exit code instead of a traceback.

    So does one of a command that the script called, which has explained it.
    """
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)
    except MsadError as error:
        sys.exit(complain(error))
