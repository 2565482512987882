"""The same message as somebody else would type it: in haste, on a telephone, shouting, with a preamble.

Covered: English and Spanish, six ways, deterministic for a seed. Used on the written test sets (`medtune eval`) and on
the training examples.
Not covered: other words for the same thing: those are written by hand.
"""

from __future__ import annotations

import random
import re

KINDS = ("typos", "lower", "shout", "bare", "preamble", "ending")
_NEIGHBOURS = {
    "a": "sq", "b": "vn", "c": "xv", "d": "sf", "e": "wr", "f": "dg", "g": "fh", "h": "gj", "i": "uo", "j": "hk",
    "k": "jl", "l": "k", "m": "n", "n": "bm", "o": "ip", "p": "o", "q": "w", "r": "et", "s": "ad", "t": "ry",
    "u": "yi", "v": "cb", "w": "qe", "x": "zc", "y": "tu", "z": "x",
}  # fmt: skip
_PREAMBLES = (
    "Hi, ",
    "hello, quick question: ",
    "Sorry to bother you. ",
    "Sorry for my English. ",
    "I don't know if this is the right place but ",
    "ok so ",
    "Good evening. ",
    "not sure what to do. ",
    "Hey there, hope you are well. ",
)
_ENDINGS = (
    " Thanks",
    " thank you in advance",
    " pls help",
    " any ideas?",
    " Thank you for your time.",
    " I don't want to make a fuss.",
    " anyone?",
    " Sent from my phone",
)


def perturb(text: str, kind: str, seed: int = 0) -> str:
    """`text` in the way `kind` (one of `KINDS`), the same for the same seed. Raises ValueError for another kind."""
    generator = random.Random(f"{kind} {seed} {text}")
    if kind == "typos":
        return re.sub(r"\b[A-Za-z]{4,}\b", lambda match: _slip(match.group(), generator), text)
    if kind == "lower":
        return re.sub(r"['’,;]", "", text.lower())
    if kind == "shout":
        return text.upper()
    if kind == "bare":
        return " ".join(re.sub(r"[^\w\s/%.]|\.(?!\d)", " ", text).split())
    if kind == "preamble":
        return generator.choice(_PREAMBLES) + text
    if kind == "ending":
        return text + generator.choice(_ENDINGS)
    raise ValueError(f"{kind}: no way to perturb a text. Expected one of {', '.join(KINDS)}.")


def _slip(word: str, generator: random.Random) -> str:
    """One slip of the fingers in one word of five: two letters swapped, one left out, doubled, or its neighbour hit."""
    if generator.random() > 0.2:
        return word
    at = generator.randrange(1, len(word) - 1)
    before, letter, after = word[:at], word[at], word[at + 1 :]
    return generator.choice(
        (
            before + after[0] + letter + after[1:],
            before + after,
            before + letter * 2 + after,
            before + generator.choice(_NEIGHBOURS.get(letter.lower(), letter)) + after,
        )
    )
