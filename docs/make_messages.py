"""Makes the tables of messages.md from the source: `python docs/make_messages.py` after an error was added or reworded.

Rows keep their places and meanings. Those of errors that are gone go. New ones come last in the table of their exit
code with an empty meaning, which a person fills in. tests/test_documented.py holds that the page is what this
would write.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PAGE = Path(__file__).parent / "messages.md"
SOURCE = Path(__file__).parents[1] / "msad_cli"
HEAD = "| code | message | meaning |"
ROW = re.compile(r"\| `([^`]+)` \| `([^`]+)` \| ?(.*?) ?\|")
KIND = "MsadError"
"""The class that all errors come from."""


class Said(NamedTuple):
    """An error as the source has it, with `…` in its message for what differs."""

    code: str
    message: str


def pattern(message: ast.expr) -> str:
    """A message with `…` for what differs, without the file or flag in front; only `…` if it is all another's words."""
    parts = message.values if isinstance(message, ast.JoinedStr) else [message]
    text = "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in parts)
    text = re.sub(r"^(…(, line …)?: )+", "", text)
    return text if re.search(r"\w", text) else "…"


def exit_codes(trees: list[ast.Module]) -> dict[str, int]:
    """The exit code of each class of errors by name."""
    classes = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    codes: dict[str, int] = {}
    while new := [
        each
        for each in classes
        if each.name not in codes
        and (each.name == KIND or any(isinstance(base, ast.Name) and base.id in codes for base in each.bases))
    ]:
        for each in new:
            bases = [codes[base.id] for base in each.bases if isinstance(base, ast.Name) and base.id in codes]
            own = [
                node.value.value
                for node in each.body
                if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "exit_code"
                if isinstance(node.value, ast.Constant) and isinstance(node.value.value, int)
            ]
            codes[each.name] = [*bases, *own][-1]
    return codes


def errors_of(tree: ast.Module, kinds: dict[str, int], place: str) -> Iterator[tuple[Said, int]]:
    """The errors that a file makes, each with its exit code.

    Raises:
        ValueError: one has no literal code, nor that of another error or problem, whose words it passes on.
    """
    for call in ast.walk(tree):
        name = call.func if isinstance(call, ast.Call) else None
        kind = name.id if isinstance(name, ast.Name) else name.attr if isinstance(name, ast.Attribute) else ""
        if not isinstance(call, ast.Call) or kind not in kinds:
            continue
        code = next((each.value for each in call.keywords if each.arg == "code"), None)
        if isinstance(code, ast.Attribute) and code.attr == "code":
            continue
        if not call.args or not isinstance(code, ast.Constant) or not re.fullmatch("[a-z0-9-]+", str(code.value)):
            raise ValueError(f'{place}:{call.lineno}: {kind} without a code="…"')
        yield Said(str(code.value), pattern(call.args[0])), kinds[kind]


def all_errors() -> dict[Said, set[int]]:
    """What msad's source says in errors, with the exit codes."""
    files = sorted(SOURCE.rglob("*.py"))
    trees = [ast.parse(file.read_text()) for file in files]
    kinds = exit_codes(trees)
    found: dict[Said, set[int]] = {}
    for file, tree in zip(files, trees, strict=True):
        for said, exit_code in errors_of(tree, kinds, str(file)):
            found.setdefault(said, set()).add(exit_code)
    return found


def rows(text: str) -> dict[Said, str]:
    """The rows of a page with their meanings."""
    return {Said(found[1], found[2]): found[3] for line in text.splitlines() if (found := ROW.fullmatch(line))}


def made(text: str, wanted: dict[Said, set[int]]) -> str:
    """The page whose rows are those of the source."""
    gone = {row: meaning for row, meaning in rows(text).items() if row not in wanted}
    exits: dict[str, list[int]] = {}  # by the heading of a section, the exit codes that it is on
    heading, lines, missing = "", [], dict(wanted)
    last: dict[int, int] = {}  # by exit code, the line behind which new rows come: in the first table that is on it
    inside, first = False, list[int]()
    for line in text.splitlines():
        if line == HEAD:
            first = [each for each in exits[heading] if each not in last]
        inside = line == HEAD or (inside and line.startswith("|"))
        if line.startswith("## "):
            heading = line
            exits[heading] = [int(each) for each in re.findall(r"\d", line.partition(":")[0])]
        if inside and (found := ROW.fullmatch(line)):
            said = Said(found[1], found[2])
            if not missing.get(said, set()) & set(exits[heading]):
                continue
            del missing[said]
        lines.append(line)
        for each in first if inside else ():
            last[each] = len(lines)
    new = [(last[min(on)], said) for said, on in missing.items()]
    for place, said in sorted(new, reverse=True):
        lines.insert(place, f"| `{said.code}` | `{said.message}` | {_meaning(said, gone)} |")
    return "\n".join(lines) + "\n"


def _meaning(said: Said, gone: dict[Said, str]) -> str:
    """What a row meant before its code or its words changed; empty for a new error."""
    of_message = [meaning for row, meaning in gone.items() if row.message == said.message != "…"]
    of_code = [meaning for row, meaning in gone.items() if row.code == said.code]
    return next((each[0] for each in (of_message, of_code) if len(each) == 1), "")


if __name__ == "__main__":
    PAGE.write_text(made(PAGE.read_text(), all_errors()))
    for said, meaning in rows(PAGE.read_text()).items():
        if not meaning:
            print(f"{PAGE.name} does not say yet what {said.code} means: {said.message}")
