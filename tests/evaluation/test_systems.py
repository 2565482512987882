"""Floors that are really floors, and test questions that do not depend on the run."""

import dataclasses
from collections import Counter

import pytest

from medtune.errors import EvaluationError
from medtune.evaluation import systems
from medtune.models.scripted import ScriptedCompleter
from medtune.types import Completion, Conversation, Message


def answers(system, conversations):
    found = dict(system.answers(conversations, 4))
    return [found[i].text for i in range(len(conversations))]


def test_questions_are_drawn_evenly_over_the_groups(conversation):
    pool = [conversation(i, group="large" if i < 90 else f"small{i}") for i in range(100)]
    drawn = Counter(c.group for c in systems.draw(pool, 20))
    assert len(drawn) == 11
    assert drawn["large"] == 10
    assert len(systems.draw(pool, None)) == 100


def test_fewer_questions_are_the_beginning_of_more_in_any_order_of_the_file(conversation):
    pool = [conversation(i, group=f"g{i % 7}") for i in range(50)]
    assert systems.draw(pool, 10) == systems.draw(pool[::-1], 30)[:10]


def test_a_text_without_a_question_is_not_asked():
    text = Conversation("t", (Message("text", "The lung."),))
    assert systems.draw([text], 10) == []


def test_two_conversations_with_one_id_are_refused(conversation):
    with pytest.raises(EvaluationError, match="same id"):
        systems.draw([conversation(1), conversation(1)], None)


def test_a_random_answer_is_some_training_answer_whatever_else_is_asked(conversation):
    train, test = [conversation(i) for i in range(50)], [conversation(i) for i in range(100, 140)]
    system = systems.random_answer(train, seed=0)
    together = answers(system, test)
    assert set(together) <= {c.answer for c in train}
    assert len(set(together)) > 15
    assert together[7] == answers(system, [test[7]])[0], "a resumed run gives the same answers"
    assert together != answers(systems.random_answer(train, seed=1), test)


def test_the_nearest_answer_belongs_to_the_most_similar_question(conversation):
    train = [
        conversation(1, "What are the symptoms of asthma ?", "Wheezing."),
        conversation(2, "What are the symptoms of gout ?", "A swollen toe."),
        conversation(3, "How is asthma treated ?", "With inhalers."),
    ]
    test = [
        conversation(11, "symptoms of gout"),
        conversation(12, "How can asthma be treated ?"),
        conversation(13, "Zzyzx qwxyk ?"),
        conversation(14, "?"),
    ]
    assert answers(systems.nearest_answer(train), test) == ["A swollen toe.", "With inhalers.", "", ""]


def test_a_floor_needs_training_questions():
    text = Conversation("t", (Message("text", "The lung."),))
    for floor in (lambda: systems.random_answer([text], 0), lambda: systems.nearest_answer([text])):
        with pytest.raises(EvaluationError, match=r"Set evaluate\.systems: \[base, tuned\]"):
            floor()


def test_a_floor_never_sees_the_reference(conversation):
    train = [conversation(i) for i in range(5)]
    for system in (systems.random_answer(train, 0), systems.nearest_answer(train)):
        one, other = (conversation(9, "What is disease 3 ?", answer) for answer in ("It is 4.", "It is 1."))
        assert answers(system, [one]) == answers(system, [other])


def test_a_model_is_given_the_prompt_alone(conversation):
    completer = ScriptedCompleter({"What is disease 1 ?": "a b c"})
    system = systems.model_system("base", completer, "f", max_new_tokens=2)
    assert answers(system, [conversation(1)]) == ["a b"]
    assert completer.asked == [(Message("user", "What is disease 1 ?"),)]


def test_another_model_or_another_limit_has_another_fingerprint():
    completer = ScriptedCompleter({})
    prints = {systems.model_system("base", completer, model, limit).fingerprint for model in "ab" for limit in (1, 2)}
    assert len(prints) == 4


def test_examples_stand_between_the_system_turn_and_the_question(conversation):
    asked = []

    def answers(conversations, _batch_size):
        asked.extend(conversations)
        return ((i, Completion("a")) for i in range(len(conversations)))

    base = systems.System("base", "f", answers)
    shown = systems.few_shot(base, [conversation(1), conversation(2)])
    question = conversation(9)
    question = dataclasses.replace(question, messages=(Message("system", "Be kind."), *question.messages))
    assert len(list(shown.answers([question], 1))) == 1
    assert [m.role for m in asked[0].messages] == [
        "system",
        "user",
        "assistant",
        "user",
        "assistant",
        "user",
        "assistant",
    ]
    assert (asked[0].question, asked[0].answer) == (question.question, question.answer)
    assert (shown.name, shown.likelihoods) == ("few_shot", None)
    assert shown.fingerprint != systems.few_shot(base, [conversation(1)]).fingerprint
