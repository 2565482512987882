import pytest

from medtune.assistant.perturb import KINDS, perturb

TEXT = "My mother, who is 82, can't speak properly since breakfast and her temperature is 38.5!"


@pytest.mark.parametrize("kind", KINDS)
def test_each_way_changes_the_text_and_is_the_same_for_a_seed(kind):
    assert perturb(TEXT, kind) != TEXT
    assert perturb(TEXT, kind, 3) == perturb(TEXT, kind, 3)


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_survive(kind):
    assert "38.5" in perturb(TEXT, kind)


def test_another_way_is_refused():
    with pytest.raises(ValueError, match="typos, lower"):
        perturb(TEXT, "upside down")
