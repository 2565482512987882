"""Grounding on the starter library: statements in other words, and the same statements turned wrong."""

from __future__ import annotations

import pytest

from medtune.assistant.grounding import Grounding
from medtune.assistant.open import rarity
from medtune.knowledge import index as indexing
from medtune.knowledge.index import Index
from medtune.knowledge.passages import read_entries
from medtune.recipe_assistant import AssistantSection, KnowledgeSource
from medtune.types import Passage

TRUE = [
    ("Gout", "Gout is caused by sharp crystals of uric acid in a joint."),
    ("Gout", "A gout attack usually goes away within one to two weeks."),
    ("Gout", "Beer, sugary drinks and a lot of meat can raise uric acid levels."),
    ("ADHD in children", "ADHD is not caused by sugar or by bad parenting."),
    ("ADHD in children", "Girls with ADHD often mainly daydream and are missed."),
    ("Statins", "Statins lower LDL cholesterol and cut the risk of heart attack and stroke."),
    ("Statins", "Serious harm to the liver from statins is rare."),
    ("Statins", "Large amounts of grapefruit should be avoided with certain statins."),
    ("Sprains and strains", "Rest, cold and support help in the first days after a sprain."),
    ("Sprains and strains", "Use a wrapped cold pack for 15 to 20 minutes several times a day."),
    ("Acetaminophen (paracetamol)", "Too much paracetamol can destroy the liver."),
    ("Acetaminophen (paracetamol)", "Acetaminophen eases pain and brings down fever but does not reduce swelling."),
    ("Cough", "After a cold, a cough may hang on for two or three weeks."),
    ("Cough", "Antibiotics do not work on the viruses that usually cause a cough."),
    ("Stroke", "High blood pressure is the biggest risk for stroke that can be changed."),
    ("Stroke", "In a stroke, a clot or a bleed cuts off blood to part of the brain."),
    ("Stroke", "Do not give food, drink or aspirin to someone who has a stroke."),
    ("Lying awake at night", "Alcohol, late screens and naps make insomnia worse."),
    ("Lying awake at night", "Sleeping pills may help for a few nights but can lead to habit and falls."),
    ("Antibiotics", "Antibiotics do nothing against viruses such as colds and flu."),
    ("Antibiotics", "Common side effects of antibiotics are upset stomach, loose stools and yeast infections."),
    ("Vaccines for adults", "Tetanus protection needs a booster about every 10 years."),
    ("Depression", "Depression is not a weakness, and most people get better with treatment."),
    ("Diabetes pills", "Metformin makes the liver release less sugar."),
    ("Shingles", "The rash of shingles dries within two to four weeks."),
]
WRONG = [
    ("Gout", "Gout is caused by a virus in the joint."),
    ("Gout", "A gout attack fades within one to two days."),
    ("Gout", "Drinking beer lowers uric acid levels."),
    ("Gout", "Stop taking your uric acid medicine during an attack."),
    ("ADHD in children", "ADHD is caused by sugar and bad parenting."),
    ("ADHD in children", "Children with ADHD are restless because they eat too much bread."),
    ("Statins", "Statins raise LDL cholesterol in the blood."),
    ("Statins", "Serious harm to the liver is common with statins."),
    ("Statins", "You can stop taking statins after 3 weeks."),
    ("Sprains and strains", "Use a wrapped cold pack for 50 to 60 minutes several times a day."),
    ("Acetaminophen (paracetamol)", "Paracetamol is safe for the liver even in large amounts."),
    ("Acetaminophen (paracetamol)", "Acetaminophen reduces swelling."),
    ("Acetaminophen (paracetamol)", "Take 1000 mg of acetaminophen every 4 hours."),
    ("Cough", "Antibiotics work well on the viruses that cause a cough."),
    ("Cough", "A cough that lasts for three months is normal."),
    ("Stroke", "Give aspirin at once to someone with a stroke."),
    ("Stroke", "In a stroke brain cells begin to die within days."),
    ("Stroke", "Wait to see if the signs of a stroke pass."),
    ("Lying awake at night", "Naps and alcohol make insomnia better."),
    ("Lying awake at night", "Sleeping pills are the best lasting cure."),
    ("Antibiotics", "Antibiotics kill viruses such as colds and flu."),
    ("Antibiotics", "You may share leftover antibiotics with your family."),
    ("Vaccines for adults", "Tetanus protection lasts for life after one shot."),
    ("Depression", "Depression is a weakness that one can just snap out of."),
    ("Diabetes pills", "Metformin makes the liver release more sugar."),
    ("Shingles", "Shingles is caused by the measles virus."),
]


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    folder = tmp_path_factory.mktemp("library")
    indexing.build(read_entries([KnowledgeSource(path="starter")]), folder, None)
    return indexing.open_index(folder, None)


@pytest.fixture(scope="module")
def documents(index: Index) -> dict[str, list[Passage]]:
    """The passages of each title."""
    found: dict[str, list[Passage]] = {}
    for row in range(len(index)):
        passage = index.passage(row)
        found.setdefault(passage.title, []).append(passage)
    return found


def test_statements_are_told_from_their_distortions(index: Index, documents: dict[str, list[Passage]]) -> None:
    grounding, threshold = Grounding(rarity(index)), AssistantSection().support
    backed = [
        text for title, text in TRUE if grounding.check(text, documents[title], threshold)[0].support == "supported"
    ]
    passed = [
        text for title, text in WRONG if grounding.check(text, documents[title], threshold)[0].support == "supported"
    ]
    assert len(backed) >= 0.9 * len(TRUE), sorted({text for _, text in TRUE} - set(backed))
    assert len(passed) <= 0.12 * len(WRONG), passed
