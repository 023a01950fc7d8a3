"""Every command that README, docs and examples show is one that msad takes.

Read are code blocks and inline code of Markdown, and shell files. A command is parsed by msad's own parser and not run,
by these rules:

- lines that end in a backslash go on; a remark begins with `→`, `#`, or two spaces and something that is no bracket;
- `[--flag …]` may be given, so it is parsed too; `[ANYTHING]` else is left out, and so are `…` and `"$@"`;
- of `a|b|c` the first is taken; a word of capitals stands for any value, so a number does;
- variables are what a line above in the same file assigned, others some text; `$(…)` is a command of its own;
- what stands in inline code, or ends in `…`, may lack what a whole command needs: it is a mention.
"""

import ast
import itertools
import re
import shlex
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer

from msad_cli import errors
from msad_cli.cli.app import app

ROOT = Path(__file__).parents[1]
MARKDOWN = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
MARKDOWN.append(ROOT / "examples" / "README.md")
FILES = [*MARKDOWN, *sorted((ROOT / "examples").glob("*.sh"))]
FOREIGN = {"--shm-size", "--node-rank"}
"""Flags that the docs name and that are others': docker's and torchrun's."""
LACKING = {"MissingParameter", "BadOptionUsage", "NoArgsIsHelpError"}
"""What msad's parser says of a mention: an argument, an option's value or a command of `msad data` is not given."""
FENCED = re.compile(r"^```\w*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"(?:^ {4}.*\n)+", re.MULTILINE)
INLINE = re.compile(r"`([^`]+)`")
REMARK = re.compile(r"→.*|(?:^|\s)#.*| {2,}(?![ \[]).*")
ASSIGNED = re.compile(r"\s*(\w+)=(\"[^\"]*\"|'[^']*'|\S*)\s*")
RUN = re.compile(r"(?:^|[\s(&;])(?:msad|-m msad_cli|python \S+\.py|bash \S+\.sh)(?=\s|$)")
"""What is looked at: msad, and the programs of this repository."""
SEPARATORS = re.compile(r"[|&;()]+")


class Shown(NamedTuple):
    """A command as a file shows it; a mention may lack arguments."""

    words: tuple[str, ...]
    mention: bool


def substituted(line: str, variables: dict[str, str]) -> str:
    line = re.sub(r'"?\$(?:@|\{@[^}]*\})"?', "", line)
    return re.sub(
        r"\$\{?(\w+)(?:[^\w}][^}]*\}|\}|)", lambda found: variables.get(found[1], "some" if found[1] else ""), line
    )


def words(line: str) -> Iterator[tuple[str, ...]]:
    """The commands of a line, split as a shell does, with placeholders replaced."""
    line = re.sub(r"\[(--[^\]]*)\]|\[[^\]]*\]", lambda found: found[1] or "", line.replace("…", ""))
    line = re.sub(r"(?<=\w)\|[\w|-]+", "", line)
    reader = shlex.shlex(line, posix=True, punctuation_chars="();|&")
    reader.commenters = ""
    reader.whitespace_split = True
    command: list[str] = []
    for word in [*reader, ";"]:
        if not SEPARATORS.fullmatch(word):
            command.append("1" if re.fullmatch("[A-Z]+", word) and word != "COMMAND" else word)
        elif command:
            yield tuple(command)
            command = []


def commands(text: str, mention: bool) -> Iterator[Shown]:
    """All commands of a piece of shell."""
    variables: dict[str, str] = {}
    text = re.sub(r"\\\n\s*", "", text)
    for whole in text.splitlines():
        line = substituted(REMARK.sub("", whole), variables)
        for inner in re.findall(r"\$\(([^()]*)\)", line):
            yield from (Shown(each, mention) for each in words(inner))
        line = re.sub(r"\"?\$\([^()]*\)\"?", "some", line)
        if assigned := ASSIGNED.fullmatch(line):
            variables[assigned[1]] = assigned[2].strip("\"'")
            continue
        if RUN.search(line):
            yield from (Shown(each, mention or "…" in whole) for each in words(line))


def shown(file: Path) -> list[Shown]:
    text = file.read_text()
    if file.suffix == ".sh":
        return list(commands(text, mention=False))
    blocks = [found[1] for found in FENCED.finditer(text)]
    text = FENCED.sub("", text)
    blocks += [re.sub("^ {4}", "", found[0], flags=re.MULTILINE) for found in INDENTED.finditer(text)]
    inline = [found[1].replace("\n", " ") for found in INLINE.finditer(INDENTED.sub("", text))]
    found = [each for block in blocks for each in commands(block, mention=False)]
    return found + [each for span in inline for each in commands(span, mention=True)]


def of_msad(words: tuple[str, ...]) -> tuple[str, ...] | None:
    """What msad is given, if this runs msad."""
    while words and ASSIGNED.fullmatch(words[0]):
        words = words[1:]
    if words[:1] == ("msad",):
        return words[1:]
    module = next((i for i, pair in enumerate(itertools.pairwise(words)) if pair == ("-m", "msad_cli")), None)
    return None if module is None else words[module + 2 :]


@cache
def deaf() -> Any:
    """msad's command, all of whose parts parse and do nothing."""
    whole: Any = typer.main.get_command(app)  # made anew by each call
    parts = [whole]
    for part in parts:
        part.callback = lambda **_: None
        for parameter in part.params:
            parameter.callback = None  # --version prints, --install-completion installs
        parts += getattr(part, "commands", {}).values()
    return whole


def parse(arguments: tuple[str, ...], mention: bool = False) -> None:
    """Raises what msad's parser raises for these arguments."""
    if arguments[:1] == ("COMMAND",):
        return
    try:
        deaf().main(list(arguments), prog_name="msad", standalone_mode=False)
    except Exception as error:
        if not mention or type(error).__name__ not in LACKING:
            raise


def flags_of_teacher() -> frozenset[str]:
    """What `msad teacher` takes, which some programs hand on to it."""
    return frozenset(flag for each in deaf().commands["teacher"].params for flag in each.opts)


def named(file: Path) -> str:
    return str(file.relative_to(ROOT))


def all_shown() -> list[tuple[str, Shown]]:
    """Every command with the name of its file."""
    return [(named(file), each) for file in FILES for each in shown(file)]


def test_every_command_that_is_shown_is_understood() -> None:
    faults = []
    for file, command in all_shown():
        arguments = of_msad(command.words)
        if arguments is None:
            continue
        try:
            parse(arguments, command.mention)
        except Exception as error:
            faults.append(f"{file}: msad {shlex.join(arguments)}: {error}")
    assert faults == []


def test_every_program_that_is_shown_is_there_with_its_flags() -> None:
    faults = []
    for file, command in all_shown():
        program = next((each for each in command.words if each.endswith((".py", ".sh"))), None)
        if program is None or of_msad(command.words) is not None:
            continue
        text = (ROOT / program).read_text() if (ROOT / program).exists() else ""
        handed_on = flags_of_teacher() if "parse_known_args" in text else frozenset()
        typed = [each.partition("=")[0] for each in command.words if each.startswith("--")]
        flags = [each for each in typed if f'"{each}"' not in text and each not in handed_on]
        faults += [f"{file}: {program} {each}" for each in (flags if text else [": no such program"])]
    assert faults == []


def test_every_flag_that_is_named_is_a_flag_of_some_command() -> None:
    whole = deaf()
    parts = [whole, *whole.commands.values(), *whole.commands["data"].commands.values()]
    known = {name for part in parts for each in part.params for name in (*each.opts, *each.secondary_opts)}
    known |= FOREIGN | {"--help"}
    faults = [
        f"{named(file)}: {flag}"
        for file in MARKDOWN
        for span in INLINE.findall(file.read_text())
        for flag in re.findall(r"^(--[a-z][a-z0-9-]*)", span)
        if flag not in known
    ]
    assert faults == []


def test_every_link_leads_to_a_file() -> None:
    faults = [
        f"{named(file)}: {target}"
        for file in MARKDOWN
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", file.read_text())
        if not (file.parent / target).exists()
    ]
    assert faults == []


def test_every_command_is_shown() -> None:
    whole = deaf()
    wanted: set[tuple[str, ...]] = {(name,) for name in whole.commands.keys() - {"data"}}
    wanted |= {("data", name) for name in whole.commands["data"].commands}
    given = {of_msad(command.words) or () for file in FILES for command in shown(file)}
    assert wanted <= {each[: 2 if each[:1] == ("data",) else 1] for each in given}


@pytest.fixture
def maker(monkeypatch: pytest.MonkeyPatch) -> Any:
    """docs/make_messages.py."""
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    return import_module("make_messages")


def test_every_error_is_explained_with_its_code(maker: Any) -> None:
    page, errors_made = maker.PAGE.read_text(), maker.all_errors()
    explained = maker.rows(page)
    assert sorted(explained) == sorted(errors_made)
    assert [said for said, meaning in explained.items() if not meaning] == []
    assert page == maker.made(page, errors_made), "python docs/make_messages.py makes it"


def test_an_error_has_a_literal_code_or_passes_one_on(maker: Any) -> None:
    def found(call: str) -> list[tuple[tuple[str, str], int]]:
        return list(maker.errors_of(ast.parse(call), {"DataError": 3}, "here.py"))

    assert found('DataError(f"{file}, line {n}: no {x}", code="split-missing")') == [(("split-missing", "no …"), 3)]
    assert found("DataError(str(error), code='bug')") == [(("bug", "…"), 3)]
    assert found("DataError(error.message, hint, code=error.code)") == []
    for wrong in ("", ', code=f"{kind}-missing"', ", code=code", ', code="No data"'):
        with pytest.raises(ValueError, match=r"here\.py:1: DataError without a code"):
            found(f'DataError("no data"{wrong})')


def test_rows_keep_their_meaning_when_code_or_words_change_and_go_with_their_error(maker: Any) -> None:
    def page(*rows: str) -> str:
        return "\n".join(["## 3: the data", "", maker.HEAD, "|---|---|---|", *rows, ""])

    before = page("| `b` | `is gone` | b |", "| `a` | `new words` | a |", "| `c` | `stays` | c |")
    wanted = {("b2", "is gone"): {3}, ("a", "other words"): {3, 4}, ("c", "stays"): {3}, ("d", "new"): {3}}
    after = page(
        "| `c` | `stays` | c |", "| `a` | `other words` | a |", "| `b2` | `is gone` | b |", "| `d` | `new` |  |"
    )
    wanted = {maker.Said(*said): on for said, on in wanted.items()}
    assert maker.made(before, wanted) == maker.made(after, wanted) == after
    assert maker.made(before, {}) == page()


def test_every_error_stands_at_its_exit_code() -> None:
    rows = re.findall(r"^\| (\d) \| (.*?) \|", (ROOT / "docs" / "troubleshooting.md").read_text(), re.MULTILINE)
    stated = {(int(code), name) for code, names in rows for name in re.findall(r"`(\w+)`", names)}
    classes = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, errors.MsadError)]
    assert stated == {(each.exit_code, each.__name__) for each in classes if each is not errors.MsadError}


def test_how_commands_are_found() -> None:
    text = """same="--batch 8"
msad teacher --data DIR $same \\
    --out t.safetensors   [--scales vanilla]
FEW=1 msad predict "$(msad data demo)"'/val/?.jpg' "${@:2}"   and a remark
msad eval m.onnx --view high|low && torchrun -m msad_cli distill …  # another
python benchmarks/step.py --rounds 2
cd msad.run
"""
    assert [each.words for each in commands(text, mention=False)] == [
        ("msad", "teacher", "--data", "1", "--batch", "8", "--out", "t.safetensors", "--scales", "vanilla"),
        ("msad", "data", "demo"),
        ("FEW=1", "msad", "predict", "some/val/?.jpg"),
        ("msad", "eval", "m.onnx", "--view", "high"),
        ("torchrun", "-m", "msad_cli", "distill"),
        ("python", "benchmarks/step.py", "--rounds", "2"),
    ]


@pytest.mark.parametrize(
    "line",
    ["msad teechr", "msad eval m --pre-class", "msad bench m --runs many", "msad flops a b", "msad export --int8"],
)
def test_what_msad_would_refuse_is_refused(line: str) -> None:
    (command,) = commands(line, mention=False)
    arguments = of_msad(command.words)
    assert arguments is not None
    with pytest.raises(Exception, match=r"teechr|--pre-class|valid integer|extra argument|Missing parameter"):
        parse(arguments)
