"""Whether a mirror leaves labels as they are: classes whose names say left and right change places in it."""

import re
import unicodedata
from collections.abc import Sequence

MIRRORED = 0.5
"""How likely an image of training is mirrored, where a mirror changes no meaning."""

SIDES = """
left right, leftward rightward, lefthand righthand, port starboard, clockwise counterclockwise, clockwise anticlockwise,
links rechts, linke rechte, linker rechter, linkes rechtes, gauche droite, gauche droit, babord tribord,
izquierda derecha, izquierdo derecho, sinistra destra, sinistro destro, esquerda direita, esquerdo direito,
stânga dreapta, stâng drept, vänster höger, venstre høyre, venstre højre, vasen oikea, lewo prawo, lewy prawy,
lewa prawa, lewe prawe, vlevo vpravo, levý pravý, levá pravá, ľavý pravý, levo desno, lijevo desno, levi desni,
лево право, левый правый, левая правая, левое правое, слева справа, лівий правий, ліворуч праворуч, ляво дясно,
αριστερά δεξιά, αριστερός δεξιός, 左 右, 왼 오른, 좌 우, يسار يمين, أيسر أيمن, שמאל ימין, बाएँ दाएँ, बायां दायां, বাম ডান,
ซ้าย ขวา, trái phải, kiri kanan, sol sağ, bal jobb, izq der,
l r, lt rt, lh rh, lhs rhs, lb rb, lf rf, tl tr, bl br, fl fr, rl rr, sx dx, cw ccw,
← →, ↖ ↗, ↙ ↘, ⬅ ➡, ↰ ↱, ↺ ↻, ⟲ ⟳, 👈 👉
"""
"""Words of which each becomes the other in a mirror, in the languages of many users; as names of classes have them."""
FEWEST_LETTERS = 4
"""Shorter words of Latin letters count only where they stand alone: `lock` and `rock` are no pair."""


def mirror_pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of classes, in their order, whose names differ by left and right: `turn_left`, `turnRight`; `L`, `R`."""
    known = {_plain(name): name for name in reversed(names)}
    found: dict[tuple[str, str], None] = {}
    for name in names:
        plain = _plain(name)
        for sides, words in _SWAPS:
            swapped = words.sub(lambda match, sides=sides: sides[match[0]], plain)  # type: ignore[misc]
            other = known.get(swapped)
            if other is not None and swapped != plain and (other, name) not in found:
                found[name, other] = None
    return list(found)


def _plain(text: str) -> str:
    """Small letters without accents, a blank where a capital begins a word: `turnLeft` as `turn left`, signs alike."""
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text)
    letters = unicodedata.normalize("NFKD", apart.casefold())
    return re.sub(r"[\s_.-]+", " ", "".join(each for each in letters if not unicodedata.combining(each))).strip()


def _swaps() -> list[tuple[dict[str, str], re.Pattern[str]]]:
    """Of each pair of words which becomes which, and what finds both."""
    swaps = []
    for pair in SIDES.split(","):
        one, other = (_plain(word) for word in pair.split())
        words = "|".join(sorted((re.escape(one), re.escape(other)), key=len, reverse=True))
        alone = (one + other).isascii() and min(len(one), len(other)) < FEWEST_LETTERS
        pattern = rf"(?<![^\W\d_])(?:{words})(?![^\W\d_])" if alone else words
        swaps.append(({one: other, other: one}, re.compile(pattern)))
    return swaps


_SWAPS = _swaps()
