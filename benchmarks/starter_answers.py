"""What the embedded model answers, for a person to read: held-out MedQuAD questions, and questions of the library.

    python benchmarks/starter_answers.py runs/starter-base [--model FOLDER] [--questions 25] [--write]

The folder is a run of recipes/starter-base.yaml, whose test split the model has not seen; the library it has never
seen. Printed beside the answers: how many end by themselves, their length, and how many go round in circles (a run of
8 words stands three times in one answer). With `--write` they go to benchmarks/results/starter_answers.json.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from medtune.models import chat_template, loading
from medtune.models.completer import TransformersCompleter
from medtune.recipe import ModelSection
from medtune.run_dir import RunDir, environment, read_lines, write_json
from medtune.types import Completion, Message

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = ROOT / "src" / "medtune" / "starter" / "library.jsonl"
RESULT = ROOT / "benchmarks" / "results" / "starter_answers.json"
RUN_OF_WORDS, ROUNDS = 8, 3


def spread(items: Sequence[Any], count: int) -> list[Any]:
    """`count` of the items, evenly over the list."""
    return [items[i * len(items) // count] for i in range(count)]


def questions(run_dir: RunDir, count: int) -> dict[str, list[str]]:
    """`count` questions of each kind."""
    held_out = [
        row["messages"][0]["content"] for row in read_lines(run_dir.split("test")) if "medquad" in row["source"]
    ]
    written = [row["questions"][0] for row in read_lines(LIBRARY)]
    return {"MedQuAD, held out": spread(held_out, count), "library": spread(written, count)}


def circles(text: str) -> bool:
    """Whether a run of 8 words stands three times in `text`."""
    words = text.lower().split()
    runs = Counter(tuple(words[i : i + RUN_OF_WORDS]) for i in range(len(words) - RUN_OF_WORDS + 1))
    return max(runs.values(), default=0) >= ROUNDS


def summary(answers: Sequence[Completion]) -> dict[str, float]:
    """What can be counted about them."""
    return {
        "answers": len(answers),
        "ended": sum(answer.finish_reason == "stop" for answer in answers),
        "circles": sum(circles(answer.text) for answer in answers),
        "median_words": median(len(answer.text.split()) for answer in answers),
    }


def main() -> None:
    """Ask, print, and write where that was asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--model", default="starter")
    parser.add_argument("--questions", type=int, default=25)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    section = ModelSection(base=options.model, dtype="float32", device="cpu", attention="sdpa")
    location = loading.published(section)
    tokenizer = loading.load_tokenizer(location)
    template = chat_template.choose(section, tokenizer, "causal")
    completer = TransformersCompleter(loading.load_model(section, location), tokenizer, template, 512)
    kinds = {}
    for kind, asked in questions(RunDir(options.run), options.questions).items():
        prompts = [(Message("user", question),) for question in asked]
        found = dict(completer.complete(prompts, max_new_tokens=256, batch_size=25))
        answers = [found[i] for i in range(len(asked))]
        pairs = [
            {"question": question, "answer": answer.text, "ended": answer.finish_reason == "stop"}
            for question, answer in zip(asked, answers, strict=True)
        ]
        for pair in pairs:
            print(f"Q: {pair['question']}\nA: {pair['answer']}{'' if pair['ended'] else ' ...'}\n")
        kinds[kind] = summary(answers) | {"pairs": pairs}
    for kind, facts in kinds.items():
        print(kind, {name: value for name, value in facts.items() if name != "pairs"})
    if options.write:
        write_json(RESULT, {"environment": environment(), "kinds": kinds})


if __name__ == "__main__":
    main()
