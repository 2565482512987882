"""The written examples that ship: whole, as many as promised, and no test text among what was trained on."""

import re

import pytest

from medtune.assistant import cases

GUARDS = {"emergency": "emergency", "crisis": "crisis", "scope": "in_scope"}
AT_LEAST = {"emergency": (300, 300), "crisis": (100, 100), "scope": (300, 300)}
SHARED = 0.6


def read(name):
    path = cases.EXAMPLES / f"{name}.jsonl"
    return cases.read(path)


def words(case):
    return frozenset(re.findall(r"\w+", " ".join(m.content for m in case.messages if m.role == "user").casefold()))


@pytest.mark.parametrize("guard", GUARDS)
def test_as_many_as_promised(guard):
    label, test = GUARDS[guard], read(f"{guard}_test")
    ids = [case.id for case in (*test, *read(f"{guard}_train"))]
    assert len(set(ids)) == len(ids)
    found = tuple(sum(case.labels.get(label) is value for case in test) for value in (True, False))
    assert all(count >= least for count, least in zip(found, AT_LEAST[guard], strict=True)), found


@pytest.mark.parametrize("guard", GUARDS)
def test_no_test_text_was_trained_on(guard):
    trained = [words(case) for case in read(f"{guard}_train")]
    shared = [
        case.id
        for case in read(f"{guard}_test")
        if len(own := words(case)) > 3 and any(len(own & other) >= SHARED * len(own | other) for other in trained)
    ]
    assert not shared
