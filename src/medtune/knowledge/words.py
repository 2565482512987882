"""Text to the words that are compared: lower case, without plural endings and stop words.

Not covered: spelling (`focus`), meaning (the encoder).
"""

from __future__ import annotations

import re
import unicodedata

from bm25s.stopwords import STOPWORDS_EN_PLUS

_WORD = re.compile(r"[a-z0-9]+(?:'[a-z]+)?")
_POLITE = re.findall(
    r"\w+", "also could dear get got hello help hi im info know like need please tell thank thanks us want would"
)
STOP_WORDS = frozenset([*(w.replace("'", "") for w in STOPWORDS_EN_PLUS if len(w) > 1 or w in "ai"), *_POLITE])


def words(text: str) -> list[str]:
    """The content words of `text` in order, each in its plain form (`babies` as `baby`, `Crohn's` as `crohn`)."""
    plain = unicodedata.normalize("NFKD", text.lower().replace("’", "'")).encode("ascii", "ignore").decode()
    found = (stem(word) for word in _WORD.findall(plain))
    return [word for word in found if word not in STOP_WORDS]


def stem(word: str) -> str:
    """Without the ending of plural or possessive."""
    word = word.removesuffix("'s").replace("'", "")
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 4 and word.endswith(("ches", "shes", "xes", "sses")):
        return word[:-2]
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word
