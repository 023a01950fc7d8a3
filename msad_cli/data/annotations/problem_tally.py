"""Problems of a data set, counted by kind as they are met."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

EXAMPLES = 5
"""How many of the records concerned are named."""
MET = "msad problems"
"""The field of an annotation file made by msad that tells what was met in the set that it was made of."""


@dataclass(frozen=True)
class Problem:
    """A kind of problem and, once it was met, where.

    Attributes:
        code: of the kind, for programs; it stays what it is when the words change.
        what: the records concerned, in the plural.
        outcome: what msad does about them.
        advice: what the user can do; may be empty.
        fatal: the set cannot be used as it is.
        count: how many records.
        examples: the first few of them, in words.
    """

    code: str
    what: str
    outcome: str
    advice: str = ""
    fatal: bool = False
    count: int = 0
    examples: tuple[str, ...] = ()

    def in_line(self, split: str) -> str:
        """How many of a split, what msad does about them, and one example."""
        example = f", such as {self.examples[0]}" if self.examples else ""
        return f"{split}: {self.count} {self.what}: {self.outcome}{example}"

    def in_words(self) -> str:
        """What and where, in one line, with one example."""
        where = f": {self.examples[0]}" if self.examples else ""
        return f"{self.what}{where}" + (f" (one of {self.count})" if self.count > 1 else "")


class Tally:
    """Counts problems by kind, and keeps the words for the first few of each."""

    def __init__(self) -> None:
        self._kinds: dict[str, Problem] = {}
        self._counts: Counter[str] = Counter()
        self._examples: dict[str, list[str]] = {}

    def add(self, kind: Problem, words: str, *values: object) -> None:
        """One more. `words.format(*values)` names it, and is only made for the first few: records may be a million."""
        self.add_all(kind, (0,), lambda _: words.format(*values))

    def add_all(self, kind: Problem, places: Sequence[int], words: Callable[[int], str]) -> None:
        """One more for each place, which `words` names."""
        if len(places):
            self._kinds.setdefault(kind.code, kind)
            self._counts[kind.code] += len(places)
            examples = self._examples.setdefault(kind.code, [])
            examples.extend(words(place) for place in places[: EXAMPLES - len(examples)])

    def add_known(self, met: Any, kinds: Sequence[Problem]) -> None:
        """What `to_plain` gave of these kinds, perhaps of another file; anything else adds nothing."""
        for code, found in met.items() if isinstance(met, dict) else ():
            kind = next((each for each in kinds if each.code == code), None)
            if kind is not None and isinstance(found, dict) and type(found.get("count")) is int:
                self._kinds.setdefault(code, kind)
                self._counts[code] += found["count"]
                examples = found.get("examples")
                self._examples.setdefault(code, []).extend(map(str, examples if isinstance(examples, list) else ()))

    def to_plain(self) -> dict[str, Any]:
        """What was met, for the field `MET` of an annotation file."""
        return {code: {"count": self._counts[code], "examples": self._examples[code]} for code in self._kinds}

    def problems(self) -> tuple[Problem, ...]:
        """The kinds met, in the order in which they were met first."""
        return tuple(
            replace(kind, count=self._counts[code], examples=tuple(self._examples[code]))
            for code, kind in self._kinds.items()
        )
