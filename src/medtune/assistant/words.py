"""Words as grounding and the search for a follow-up see them: content words, stemmed, without accents.

Covered: English and Spanish. Not covered: the index's own words (`knowledge`), which decide what is found.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

# Words that say nothing about the matter; questions to an assistant are full of them.
STOP = frozenset(
    """a about after again all also am an and any are as at be because been before being both but by can could did do
    does doing done down during each even ever every few for from further get gets getting give go goes going got had
    has have having he help her here hers him his how however i if in into is it its itself just kind know let like
    lot made make makes many may maybe me might more most much must my need no nor not now of off often on once one
    only or other our out over own part people person please really same say see she should so some someone something
    sort still such take tell than thank thanks that the their them then there these they thing things think this those
    through to too under until up us use used using very want was way we well were what when where which while who whom
    why will with without would yes you your yours hi hello hey ok okay im ive dont doesnt cant isnt
    el la los las un una unos unas de del al y o u que en es son ser esta este esto esos con por para se su sus lo le
    les mi mis tu tus me te nos como cuando donde cual cuales quien muy mas pero si no sin sobre hay tiene tienen tengo
    puede pueden puedo debo hola gracias ha han he fue era desde hasta entre tambien ya""".split()  # noqa: SIM905
)
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)?")
_ENDINGS = (
    "ations",
    "ation",
    "ments",
    "ment",
    "ings",
    "ing",
    "edly",
    "ies",
    "ied",
    "ness",
    "ally",
    "ly",
    "ed",
    "es",
    "s",
)


def plain(text: str) -> str:
    """Lower case, without accents."""
    decomposed = unicodedata.normalize("NFKD", text.lower().replace("’", "'"))
    return "".join(c for c in decomposed if not unicodedata.combining(c))


def content(text: str) -> list[str]:
    """Stems of the content words, in order."""
    return [stem(w) for word in _WORD.findall(plain(text)) if (w := word.split("'")[0]) not in STOP and len(w) > 1]


@lru_cache(maxsize=50_000)
def stem(word: str) -> str:
    """A word without its commonest endings, so that "infections" meets "infection" and "coughing" meets "cough"."""
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 3 and not word.endswith("ss"):
            word = word[: -len(ending)] + ("y" if ending in ("ies", "ied") else "")
            break
    if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "aeiouls":
        word = word[:-1]
    return word[:-1] if len(word) > 4 and word[-1] in "eo" else word
