"""Reads a message clause by clause: is it about now or long ago, does it tell or ask, is a thing denied?

Covered: English, with the commonest misspellings and text-message habits; see `read` and `denied`.
Not covered: what the clauses mean (`emergency`, `crisis`), other languages (there the classifier is alone).
"""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass
from itertools import pairwise

_SPELLING = {
    "cant": "can't", "cnt": "can't", "dont": "don't", "wont": "won't", "isnt": "isn't", "doesnt": "doesn't",
    "didnt": "didn't", "wasnt": "wasn't", "hasnt": "hasn't", "havent": "haven't", "arent": "aren't",
    "couldnt": "couldn't", "wouldnt": "wouldn't", "im": "i'm", "ive": "i've", "hes": "he's", "shes": "she's",
    "wanna": "want to", "gonna": "going to", "u": "you", "ur": "your", "r": "are", "bc": "because", "rn": "right now",
    "breth": "breath", "brethe": "breathe", "breathin": "breathing", "brething": "breathing", "breth3": "breathe",
    "brathing": "breathing", "breating": "breathing", "braething": "breathing", "breate": "breathe", "cheast": "chest",
    "ches": "chest", "chset": "chest", "stomack": "stomach", "stomache": "stomach", "tung": "tongue",
    "tounge": "tongue", "toung": "tongue", "tonge": "tongue", "slured": "slurred", "slurrd": "slurred",
    "slurd": "slurred", "unconcious": "unconscious", "unconsious": "unconscious", "uncounscious": "unconscious",
    "seezure": "seizure", "siezure": "seizure", "seizur": "seizure", "diabetis": "diabetes", "suger": "sugar",
    "preg": "pregnant", "pregnent": "pregnant", "pregant": "pregnant", "pregnat": "pregnant", "bleding": "bleeding",
    "bleedin": "bleeding", "bleading": "bleeding", "blod": "blood", "vomitting": "vomiting", "vommiting": "vomiting",
    "throwin": "throwing", "swolen": "swollen", "swollin": "swollen", "sweling": "swelling", "throte": "throat",
    "thoat": "throat", "numbness": "numb", "numbnes": "numb", "hart": "heart", "pian": "pain", "hurtin": "hurting",
    "dizzyness": "dizziness", "dizy": "dizzy", "diziness": "dizziness", "fainted": "fainted", "feinted": "fainted",
    "passin": "passing", "pasing": "passing", "pased": "passed", "babys": "baby's", "wks": "weeks",
    "wk": "weeks", "mo": "month", "mos": "months", "mths": "months", "yr": "year", "yrs": "years", "yo": "year old",
    "suisidal": "suicidal", "sucidal": "suicidal", "suicidle": "suicidal", "sucide": "suicide", "suiside": "suicide",
    "droopin": "drooping", "drouping": "drooping", "tylonol": "tylenol", "tylenal": "tylenol",
}  # fmt: skip
_WORD = re.compile(r"[a-z0-9]+")
_SPLIT = re.compile(
    r"[.!?;\n]+(?=\s|$)|,? +but (?!also)|,? and now (?=i|my|he|she|her|his|the|it|we)|[,;:] (?=now )|\n"
)
_NOW = re.compile(
    r"\b(?:now|right now|today|tonight|currently|at the moment|this (?:morning|afternoon|evening|week)|just|suddenly|"
    r"again|still|since|(?:min(?:ute)?s?|hours?|hrs?) ago|an hour|last night|yesterday|woke up|keeps?|"
    r"(?:is|are|am|'s|'m) (?:\w+ )?\w+ing)\b"
)
_PAST = re.compile(
    r"\bin (?:the )?(?:19|20)\d\d|\b(?:years?|decades?|months) (?:ago|back|earlier)|\bback in\b|\bused to\b"
    r"|\b(?:when|as) (?:i|he|she|we)"
    r" (?:was|were) (?:a |in |young|little|\d)|\blast (?:year|spring|summer|fall|autumn|winter|january|february"
    r"|march|april|may"
    r"|june|july|august|september|october|november|december)\b|\b(?:family |past |previous )?history of\b"
    r"|\bas a (?:child|kid|teenager|baby)\b|\bsurvivor\b|"
    r"\brecover(?:ed|ing) from\b|\bdied (?:of|from|in)\b|\bpassed away\b|\bpreviously (?:had|diagnosed)\b"
    r"|\bin my (?:teens|twenties|thirties|20s|30s|40s)\b"
)
_ASKING = re.compile(
    r"^\W*(?:hi|hello|hey|please|so|ok|okay|and|dear \w+|just curious|curious|question|quick question|doctor"
    r"|doc)?\W*(?:can you |could you |please |i(?:'d| would)? (?:like|want|need) to |i (?:just )?(?:was|am"
    r"|'m) (?:just )?"
    r"(?:wondering|curious)\W*(?:about )?)?(?:tell me |explain |know |understand |learn |describe "
    r"|list )?(?:more |about |me )*(?:what|what's|whats|which|how|why|when|where|who|is|are|can|could|does"
    r"|do|did|should|"
    r"will|would|define|explain|difference|signs|symptoms|causes|treatments?|information|info)\b(?!')"
)
_PERSON = re.compile(
    r"\b(?:i|i'm|i've|my|me|he|he's|she|she's|his|her|him|we|our|husband|wife|mom|mum|dad|mother|father|son|daughter"
    r"|baby|toddler|someone here|this (?:man|woman|guy|lady|person)|friend|neighbou?r|coworker|roommate)\b"
)
_UNREAL = re.compile(
    r"\b(?:my (?:novel|story|book|character|screenplay|essay|homework|assignment|thesis|exam|class|professor|teacher)|"
    r"a (?:novel|story|character|movie|film|documentary|tv show|podcast|screenplay|poster|leaflet|presentation"
    r"|training|quiz|course)|"
    r"for (?:school|a class|class|a course|my course|nursing school|an exam|a paper)|case study|(?:emt|nursing"
    r"|board|exam|quiz) (?:exam|question|scenario|paper)|in the (?:movie|film|book|show|news)|"
    r"first[- ]aid (?:course|class|training)|(?:textbook|lecture|article|study|video|documentary"
    r"|headline)s? (?:says?|said|about|on|that))\b"
)
_IF = re.compile(
    r"\b(?:what if|if (?:i|someone|somebody|a person|you|he|she|my \w+|the \w+|it|they) (?:ever|were|was|had"
    r"|gets?|has|have|"
    r"starts?|does|should|would|experiences?|swallows?|shows?|passes|becomes?)|in case|would (?:i|it|you) know|"
    r"how (?:do|would|can|to) (?:i |you |we )?(?:know|tell|recogni[sz]e|spot)|when (?:should|do|would) (?:i|you"
    r"|we|one) (?:go|call|worry|see|seek)|"
    r"risk of|chances? of|prevent|avoid|could (?:lead|turn|develop)|afraid of|scared of|fear of"
    r"|worried about (?:having|getting))\b"
)
_FEAR = re.compile(
    r"\b(?:worr\w+|scared|afraid|terrified|paranoid|waiting) (?:that |about |for )?(?:my|i|it|he|she"
    r"|the)\b(?: \w+){0,2} "
    r"(?:will|might|could|would|to)\b"
)
_DENIAL = re.compile(
    r"\b(?:no|not|n't|never|without|denies|deny|denied|negative for|none of|nor|neither|free of|absence of"
    r"|instead of|rather than|isn't|doesn't|"
    r"don't|didn't|hasn't|haven't|wasn't|aren't|no longer|stopped|ruled out|rule out|rules out"
    r"|unlike)\b(?:\W+(?!but\b|just\b|only\b|and\b|sure\b|because\b|know\b)[\w'-]+){0,5}\W*$"
)


@dataclass(frozen=True, slots=True)
class Clause:
    """A piece of a message. `past`: long ago. `asking`: asks about the thing, of nobody. `unreal`: homework, fiction,
    hypothetical. A clause that is none of these tells of something that is so."""

    text: str
    start: int
    past: bool
    asking: bool
    unreal: bool

    @property
    def is_told(self) -> bool:
        return not (self.past or self.asking or self.unreal)


@dataclass(frozen=True, slots=True)
class Reading:
    """A message in plain lower case, common misspellings repaired, and its clauses in order."""

    text: str
    clauses: tuple[Clause, ...]

    def clause_at(self, position: int) -> Clause:
        return self.clauses[max(0, bisect_right([c.start for c in self.clauses], position) - 1)]

    def denied(self, position: int) -> bool:
        """True where the words before `position`, within its clause, say that what follows is not so."""
        start = self.clause_at(position).start
        return _DENIAL.search(self.text[max(start, position - 60) : position]) is not None


def plain(text: str) -> str:
    """Lower case, one kind of quote and space, the commonest misspellings repaired."""
    lowered = text.lower().translate(str.maketrans("’‘`´“”–—\t\r", "''''\"\"-- \n"))
    repaired = _WORD.sub(lambda m: _SPELLING.get(m[0], m[0]), lowered)
    return re.sub(r" {2,}", " ", repaired)


def read(text: str) -> Reading:
    """The clauses of a message, each with its time and mood. A message without words has one empty clause."""
    message = plain(text)
    cuts = [0, *(m.end() for m in _SPLIT.finditer(message)), len(message)]
    is_fiction = _UNREAL.search(message) is not None
    clauses = []
    for start, end in pairwise(cuts):
        piece = message[start:end]
        if piece.strip() or not message:
            clauses.append(_clause(piece, start, is_fiction))
    return Reading(message, tuple(clauses) or (Clause("", 0, False, False, False),))


def _clause(piece: str, start: int, is_fiction: bool) -> Clause:
    happens_now = _NOW.search(piece) is not None
    asks = _ASKING.match(piece.lstrip()) is not None
    return Clause(
        text=piece,
        start=start,
        past=_PAST.search(piece) is not None and not happens_now,
        asking=asks and not _PERSON.search(piece),
        unreal=_UNREAL.search(piece) is not None
        or (is_fiction and not _PERSON.search(piece))
        or _FEAR.search(piece) is not None
        or (_IF.search(piece) is not None and not happens_now),
    )
