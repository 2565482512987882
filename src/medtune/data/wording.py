"""What the wording of a question tells: MedQuAD's topics, a flashcard's term, an empty instruction."""

from __future__ import annotations

import re
from collections.abc import Iterable


def _compiled(*patterns: str) -> tuple[re.Pattern[str], ...]:
    return tuple(re.compile(pattern, re.IGNORECASE) for pattern in patterns)


_MEDQUAD = _compiled(
    r"what is \(are\) (.+)",
    r"do you have information about (.+)",
    r"what (?:is|are) the (?:(?:signs and )?symptoms|treatments|stages|complications|outlook) (?:of|for) (.+)",
    r"what are the genetic changes related to (.+)",
    r"how many people are affected by (.+)",
    r"how to (?:diagnose|prevent) (.+)",
    r"what to do for (.+)",
    r"what causes (.+)",
    r"who is at risk for (.+)",
    r"is (.+) inherited",
    r"what research \(or clinical trials\) is being done for (.+)",
    r"where to find support for people with (.+)",
)
_FLASHCARD = _compiled(
    r"what does (?:the term )?[\"“'](.+?)[\"”'] (?:mean|refer to)",
    r"(?:what is|define) the (?:definition|meaning) of (.+)",
    r"define (.+)",
    r"(?:what|who) (?:is|are) (?:a |an |the )?(\S+(?: \S+){0,3})",
)
_GENERAL = re.compile(
    r"(?:please )?answer (?:this|the(?: following)?)(?: medical)? question(?: truthfully)?", re.IGNORECASE
)
_BULLET = re.compile(r"(?:(?<![^\S\n])[^\S\n]{2,}|(?<=[.:;!?)])[^\S\n])-[^\S\n]+(?=\S)")


def medquad_topic(question: str) -> str:
    """The disease or subject that one of MedQuAD's question templates was filled with; empty for a free question."""
    return _filled(_MEDQUAD, question)


def flashcard_term(question: str) -> str:
    """The term that a flashcard asks for; empty where the question is about more than a term."""
    return _filled(_FLASHCARD, question)


def _filled(patterns: Iterable[re.Pattern[str]], question: str) -> str:
    bare = question.strip().rstrip("?. ")
    return next((match[1].strip("? \"'“”") for pattern in patterns if (match := pattern.fullmatch(bare))), "")


def is_general_instruction(text: str) -> bool:
    """Whether an instruction only says that the input is to be answered."""
    return _GENERAL.fullmatch(text.strip().rstrip(".:")) is not None


def one_question_mark(question: str) -> str:
    """MedQuAD's questions end in " ?" or "? ?"."""
    text = question.strip()
    end = len(text)
    while end and (text[end - 1] == "?" or text[end - 1].isspace()):
        end -= 1
    return f"{text[:end]}?" if end < len(text) else text


def bullets_on_lines(text: str) -> str:
    """MedQuAD's lists run on in one line, with a dash between two items; each item gets its own line."""
    return _BULLET.sub("\n- ", text)
