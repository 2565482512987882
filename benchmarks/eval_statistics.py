"""850 questions x 2 systems: CPU seconds for scores, for intervals and p values at 10,000 resamples, for the report.

Answers are MedQuAD's where ../shared/data is there, else made up: each system answers with another question's answer,
cut at 200 words. Topics are groups of one to five questions.

    python benchmarks/eval_statistics.py [--questions 850] [--resamples 10000]

Writes benchmarks/results/eval_statistics.json.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import itertools
import random
import time
from pathlib import Path

from rich.console import Console

from medtune.evaluation import report, summary
from medtune.evaluation.runner import grade
from medtune.evaluation.statistics import Bootstrap
from medtune.run_dir import environment, write_json
from medtune.types import Completion, Conversation, Likelihood, Message, Record

ROOT = Path(__file__).resolve().parents[1]
MEDQUAD = ROOT.parent / "shared" / "data" / "medquad.csv.gz"
RESULT = ROOT / "benchmarks" / "results" / "eval_statistics.json"


def conversations(questions: int) -> list[Conversation]:
    """Questions with reference answers, in groups of one to five."""
    if MEDQUAD.exists():
        with gzip.open(MEDQUAD, "rt", encoding="utf-8", newline="") as file:
            rows = list(itertools.islice(csv.DictReader(file), 16_000))
        rows = rows[:: len(rows) // questions][:questions]
        pairs = [(row["Question"], " ".join(row["Answer"].split()[:200])) for row in rows]
    else:
        generator = random.Random(0)
        words = [f"word{i}" for i in range(2000)]
        pairs = [(f"What is condition {i}?", " ".join(generator.choices(words, k=150))) for i in range(questions)]
    generator, group, made = random.Random(1), 0, []
    for number, (question, answer) in enumerate(pairs):
        group += generator.random() < 0.4
        messages = (Message("user", question), Message("assistant", answer))
        made.append(Conversation(f"c{number}", messages, group=f"g{group}"))
    return made


def records(system: str, asked: list[Conversation], shift: int) -> list[Record]:
    """Each question answered with another one's answer."""
    return [
        grade(system, c, Completion(asked[(i + shift) % len(asked)].answer, "stop", 20, 250, 0.1))
        for i, c in enumerate(asked)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=850)
    parser.add_argument("--resamples", type=int, default=10_000)
    options = parser.parse_args()
    asked = conversations(options.questions)
    records("base", asked[:5], 1)
    start = time.process_time()
    answered = {"base": records("base", asked, 1), "tuned": records("tuned", asked, 7)}
    graded = time.process_time() - start
    likelihood = Likelihood(400.0, 200, 900)
    answered = {
        name: [Record(**{**{f: getattr(r, f) for f in Record.__slots__}, "likelihood": likelihood}) for r in rows]
        for name, rows in answered.items()
    }
    bootstrap, seconds = Bootstrap(options.resamples, 0), []
    for _ in range(2):  # the first pass also counts the n-grams of BLEU and chrF, once for each answer
        start = time.process_time()
        for name, rows in answered.items():
            summary.system_metrics(name, rows, bootstrap)
        summary.paired(answered["base"], answered["tuned"], bootstrap)
        seconds.append(time.process_time() - start)
    start = time.process_time()
    size = len(str(report.browsing(answered, {})))
    browsing = time.process_time() - start
    result = {
        "questions": options.questions,
        "groups": len({c.group for c in asked}),
        "resamples": options.resamples,
        "grading_cpu_seconds": graded,
        "corpus_counts_cpu_seconds": seconds[0] - seconds[1],
        "statistics_cpu_seconds": seconds[1],
        "report_data_cpu_seconds": browsing,
        "report_data_characters": size,
        "machine": environment(),
    }
    write_json(RESULT, result)
    Console().print({key: value for key, value in result.items() if key != "machine"})


if __name__ == "__main__":
    main()
