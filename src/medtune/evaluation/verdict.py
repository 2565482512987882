"""What the summary means, in words: did tuning help, and what must a reader know before he believes it.

The verdict's metric is ROUGE-L of free generations, because those are what a user gets. Bits per byte of the
reference answers stands beside it, because a model can learn much that one greedy answer does not show; where the two
disagree the sentence says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from medtune.evaluation.metrics import PRIMARY

SECONDARY = "bits_per_byte"
OPENINGS = {"helped": "Tuning helped", "none": "No measurable difference", "worse": "Tuning made it worse"}
LIKELIHOODS = {
    "helped": "the reference answers became more likely",
    "none": "the reference answers became neither more nor less likely",
    "worse": "the reference answers became less likely",
}
FEW_QUESTIONS = 100
FEW_GROUPS = 30
MANY_CUT = 0.1
Difference = Mapping[str, Any]


def verdict(
    paired: Mapping[str, Difference | None], floors: Mapping[str, Mapping[str, Difference | None]] | None = None
) -> dict[str, Any]:
    """The report's first sentence, and the figures that it is derived from; `paired` is empty without base or tuned."""
    primary = paired.get(PRIMARY)
    if primary is None or primary["direction"] is None:
        reason = "it takes answers of both base and tuned to questions of at least two groups"
        empty = dict.fromkeys(("difference", "low", "high", "p", "resolvable", "direction"))
        return {"sentence": f"Whether tuning helped was not measured: {reason}.", "metric": PRIMARY, **empty}
    figures = (
        f"ROUGE-L of free answers went from {primary['before']:.3f} to {primary['after']:.3f}, "
        f"a difference of {primary['value']:+.3f} (95 % interval {primary['low']:+.3f} to {primary['high']:+.3f}, "
        f"{in_p(primary['p'])}){_against(floors or {})}"
    )
    opening = OPENINGS[primary["direction"]]
    limit = f". This test finds a difference of {primary['resolvable']:.3f} in 8 of 10 cases"
    missed = limit if primary["direction"] == "none" and primary["resolvable"] else ""
    sentence = f"{opening}: {figures}{_second_opinion(primary, paired.get(SECONDARY))}{missed}."
    facts = {key: primary[key] for key in ("low", "high", "p", "resolvable", "direction")}
    return {"sentence": sentence, "metric": PRIMARY, "difference": primary["value"], **facts}


def in_p(p: float | None) -> str:
    """A p value as one reads it."""
    return "p not known" if p is None else "p < .001" if p < 0.001 else f"p = {p:.3f}".replace("0.", ".")


def _against(floors: Mapping[str, Mapping[str, Difference | None]]) -> str:
    """Where the tuned model stands beside the floors, named with their scores."""
    words = {"helped": "above", "worse": "below", "none": "not measurably above", None: "beside"}
    named = {"random": "a random training answer", "nearest": "the nearest training question's answer"}
    found = {name: rows[PRIMARY] for name, rows in floors.items() if rows.get(PRIMARY)}
    parts = [
        f"{words[value['direction']]} {named.get(name, name)} ({value['before']:.3f})"
        for name, value in found.items()
        if value is not None
    ]
    return f", {' and '.join(parts)}" if parts else ""


def _second_opinion(primary: Difference, secondary: Difference | None) -> str:
    if secondary is None or secondary["direction"] is None:
        return ""
    joint = "and" if primary["direction"] == secondary["direction"] else "but"
    figures = f"bits per byte {secondary['before']:.3f} to {secondary['after']:.3f}"
    opposed = {primary["direction"], secondary["direction"]} == {"helped", "worse"}
    advice = ": the two disagree, so read the answers side by side before you believe either" if opposed else ""
    return f", {joint} {LIKELIHOODS[secondary['direction']]} ({figures}){advice}"


def gap(unseen: Mapping[str, Any], seen: Mapping[str, Any]) -> str:
    """What the two tests say together: how far what tuning taught carries to topics that it did not have.

    Both are `systems` of the summary: one measured on unseen topics, one on unseen phrasings of seen topics.
    """
    values = [{name: system["metrics"][PRIMARY] for name, system in side.items()} for side in (unseen, seen)]
    there = [side["tuned"] for side in values if side.get("tuned")]
    if len(there) < 2:
        return "Seen and unseen topics were not compared: that takes answers of the tuned model to both."
    topics, phrasings = there
    figures = [
        f"{side['tuned']['value']:.3f}{_interval(side['tuned'])}"
        + (f", base {side['base']['value']:.3f}" if side.get("base") else "")
        for side in values
    ]
    opening = (
        f"Seen topics in other words: tuned ROUGE-L {figures[1]}. Unseen topics: {figures[0]}. "
        f"The gap is {phrasings['value'] - topics['value']:+.3f}"
    )
    likely = _likelihoods(unseen["tuned"]["metrics"][SECONDARY], seen["tuned"]["metrics"][SECONDARY])
    if None in (topics["low"], phrasings["low"]):
        return f"{opening}; there are too few topics to say how sure it is.{likely}"
    if phrasings["low"] > topics["high"]:
        return f"{opening}: that much comes from the topics in training and does not carry over to others.{likely}"
    if topics["low"] > phrasings["high"]:
        return f"{opening}: the unseen topics are the easier ones here, so look at the data first.{likely}"
    return (
        f"{opening}, and the intervals overlap: its answers are not measurably better on topics from training.{likely}"
    )


def _likelihoods(topics: Mapping[str, Any] | None, phrasings: Mapping[str, Any] | None) -> str:
    """What the likelihood of the reference answers says beside the answers; nothing where it was not measured."""
    if topics is None or phrasings is None or None in (topics["low"], phrasings["low"]):
        return ""
    figures = (
        f" Bits per byte of the reference answers: {phrasings['value']:.3f} there, {topics['value']:.3f} elsewhere"
    )
    is_known = phrasings["high"] < topics["low"]
    return f"{figures}{', so it has learned those topics beyond what carries over' if is_known else ''}."


def _interval(value: Mapping[str, Any]) -> str:
    return "" if value["low"] is None else f" ({value['low']:.3f} to {value['high']:.3f})"


def warnings(summary: Mapping[str, Any], base: str, sources: Sequence[str] = ()) -> list[str]:
    """What would mislead a reader who sees only the scores; `base` is `model.base`, `sources` the paths of the data."""
    return [
        *_about_base(base),
        *_about_sources(sources),
        *_about_test(summary["test"]),
        *_about_systems(summary["systems"]),
        *_about_floors(summary["floors"]),
    ]


def _about_base(base: str) -> Iterator[str]:
    if base == "scratch":
        yield "The base model was initialised from scratch: this is a demonstration, not a source of medical advice."
    if base == "starter":
        yield "The base is medtune's own small demonstration model: it is no source of medical advice."


def _about_sources(sources: Sequence[str]) -> Iterator[str]:
    if "starter" in sources:
        yield "Nobody clinical has reviewed the library that comes with medtune, whose answers are the references here."


def _about_test(test: Mapping[str, Any]) -> Iterator[str]:
    if not test["questions"]:
        yield "The test split has no questions, so nothing was measured. Raise data.split.test."
    elif test["questions"] < FEW_QUESTIONS:
        yield f"Only {test['questions']} test questions: a difference under about .05 ROUGE-L cannot be seen."
    if 0 < test["groups"] < FEW_GROUPS:
        yield f"The test questions come from only {test['groups']} groups; the intervals are rough."


def _about_systems(systems: Mapping[str, Any]) -> Iterator[str]:
    for name, system in systems.items():
        counts, cut = system["counts"], system["metrics"]["truncation_rate"]
        if counts["failed"]:
            yield f"{name}: {counts['failed']} of {counts['asked']} requests failed; they are in no score."
        if counts["unanswered"]:
            yield f"{name}: {counts['unanswered']} of {counts['asked']} answers are empty; they score 0."
        if cut is not None and cut["value"] > MANY_CUT:
            percent = f"{100 * cut['value']:.0f} %"
            yield f"{name}: {percent} of the answers were cut off at evaluate.max_new_tokens; that costs them score."
        if name in ("base", "tuned") and counts["likelihood"] < counts["asked"]:
            missing = counts["asked"] - counts["likelihood"]
            yield f"{name}: {missing} reference answers have no finite likelihood; perplexity leaves them out."


def _about_floors(floors: Mapping[str, Mapping[str, Difference | None]]) -> Iterator[str]:
    for name, differences in floors.items():
        against = differences[PRIMARY]
        if against and against["direction"] in ("none", "worse"):
            how = "is below" if against["direction"] == "worse" else "does not measurably beat"
            figures = f"ROUGE-L {against['after']:.3f} against {against['before']:.3f}"
            yield f"The tuned model {how} the floor `{name}`: {figures}."
