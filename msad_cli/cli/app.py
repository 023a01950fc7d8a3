"""The Typer app, and the one place where errors become messages and exit codes."""

import os
import signal
import sys
import warnings
from typing import Annotated

import typer

from msad_cli import __version__
from msad_cli.cli.commands import data
from msad_cli.cli.commands.bench import bench
from msad_cli.cli.commands.compare import compare
from msad_cli.cli.commands.distill import distill
from msad_cli.cli.commands.doctor import doctor
from msad_cli.cli.commands.eval import evaluate
from msad_cli.cli.commands.export import export
from msad_cli.cli.commands.fit import fit
from msad_cli.cli.commands.flops import flops
from msad_cli.cli.commands.info import info
from msad_cli.cli.commands.plot import plot
from msad_cli.cli.commands.predict import predict
from msad_cli.cli.commands.teacher import teacher
from msad_cli.cli.help import Command, Group
from msad_cli.cli.output.json_output import expect_json, print_error
from msad_cli.cli.processes import other_process, refused
from msad_cli.errors import DeviceError, MsadError, UsageError
from msad_cli.system.cache_folder import CacheWarning
from msad_cli.text import nearest, printable

app = typer.Typer(
    name="msad",
    cls=Group,
    help="Give a detector the speed of small images at nearly the accuracy of large ones.",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)
for _run, _words in (
    (fit, "fit --data coco_set/ --budget 15ms --time 6h"),
    (teacher, "teacher --data coco_set/ --k 2"),
    (distill, "distill --teacher teacher.safetensors"),
    (evaluate, "eval student.safetensors --per-class"),
    (predict, "predict photos/ -m student.safetensors"),
    (flops, "flops student.safetensors"),
    (bench, "bench student.safetensors teacher.safetensors"),
    (compare, "compare plain.safetensors student.safetensors teacher.safetensors"),
    (export, "export student.safetensors --data coco_set/"),
    (plot, "plot student.run"),
    (info, "info student.safetensors"),
    (doctor, "doctor"),
):
    app.command(_words.split()[0], cls=Command, epilog=f"Example: msad {_words}")(_run)
app.add_typer(data.app, name="data")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"msad {__version__}")
        raise typer.Exit


@app.callback()
def common(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    json_errors: Annotated[
        bool, typer.Option("--json", help="Print an error as JSON on stdout, also where a command has no --json.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """Flags that stand before the command."""
    if reason := refused(context.invoked_subcommand):
        raise UsageError(reason, "leave torchrun away", code="not-in-several-processes")
    if json_errors:
        from msad_cli.cli.console import one_document

        context.with_resource(one_document(True))


def main(arguments: list[str] | None = None) -> None:
    """Runs msad and exits with the code that docs/troubleshooting.md explains."""
    if arguments is None:
        _name_files_in_utf8()
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def _name_files_in_utf8() -> None:
    """Begins anew where this Python cannot name files beyond ASCII, as in the C locale without UTF-8 mode: names that
    stand in annotations and model files are UTF-8, whatever the locale."""
    encoding = sys.getfilesystemencoding().lower()
    if encoding != "utf-8" and os.environ.get("PYTHONUTF8") != "1" and sys.executable:
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, "PYTHONUTF8": "1"})


def run(arguments: list[str]) -> int:
    """Runs msad with the given arguments; messages go to stderr, the exit code is returned."""
    debug, as_json = "--debug" in arguments, "--json" in arguments
    expect_json()
    # `--debug` may stand anywhere, also behind the command.
    arguments = [each for each in arguments if each != "--debug"]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always", CacheWarning)
            usual = warnings.showwarning
            warnings.showwarning = lambda message, category, *more, **named: (
                _tell(str(message)) if category is CacheWarning else usual(message, category, *more, **named)
            )
            outcome = app(args=arguments, prog_name="msad", standalone_mode=False)
        sys.stdout.flush()  # while an error can still be told
    except MsadError as error:
        if debug:
            raise
        return complain(error, as_json)
    except (BrokenPipeError, SystemExit) as end:
        if not isinstance(end, BrokenPipeError) and not isinstance(end.__context__, BrokenPipeError):
            raise  # Typer makes of a broken pipe an end with code 1
        # Who read stdout has enough, such as `head`. Python would complain when it closes it.
        _leave_stdout()
        return 128 + signal.SIGPIPE
    except (KeyboardInterrupt, typer.Abort):
        return 128 + signal.SIGINT
    except Exception as error:
        if debug:
            raise
        return complain(_unforeseen(error), as_json)
    return outcome if isinstance(outcome, int) else 0


def _tell(line: str) -> None:
    """A line of the first process, of several, on stderr."""
    if not other_process():
        print(printable(line), file=sys.stderr)


def _leave_stdout() -> None:
    """Lets what is still to be written to stdout go nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _unforeseen(error: Exception) -> MsadError:
    """In msad's words, an error that no code of ours has put into words."""
    if (wrong := _usage_error(error)) is not None:
        return wrong
    if isinstance(error, MemoryError):
        hint = "a smaller set or image, or fewer --workers, needs less"
        return DeviceError("out of memory", hint, code="out-of-memory")
    if isinstance(error, OSError):  # the system's word on a path, such as one that is too long
        what = f"{error.filename or 'a file'}: {error.strerror or error}"
        return UsageError(what, "check the name and its place", code="system-refuses")
    if isinstance(error, UnicodeEncodeError) and error.encoding == sys.getfilesystemencoding():
        what = f"this Python cannot name the file {error.object!r}: it writes names in {error.encoding}"
        return UsageError(what, "export PYTHONUTF8=1", code="file-name-not-encodable")
    hint = "run again with --debug and report it"
    return MsadError(f"a bug in msad: {type(error).__name__}: {error}", hint, code="bug")


def _usage_error(error: Exception) -> UsageError | None:
    """One of Typer's errors of usage as msad's own; None for any other error."""
    # Which class they have depends on whether Typer brings click along or imports it.
    if not hasattr(error, "format_message"):
        return None
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "msad"
    message = error.format_message()
    if likely := nearest(getattr(error, "option_name", ""), getattr(error, "possibilities", None) or (), 0.0):
        message = f"No such option: {getattr(error, 'option_name', '')}. Did you mean {likely}?"
    return UsageError(message, f"{command} --help lists what there is", code="wrong-usage")


def complain(error: MsadError, as_json: bool = False) -> int:
    """Tells an error and what to do next on stderr, and for programs on stdout; the exit code is returned."""
    rank = other_process()
    print(f"error: {f'rank {rank}: ' if rank else ''}{printable(error.message)}", file=sys.stderr)
    if error.hint:
        print(f"\nhint: {printable(error.hint)}", file=sys.stderr)
    if as_json and not rank:
        try:
            print_error(error)
            sys.stdout.flush()
        except OSError:  # nobody reads it, or there is no room for it
            _leave_stdout()
    return error.exit_code
