"""How fast the data stage is, and how it grows: python benchmarks/data_speed.py

Measures cleaning, grouping, splitting and tokenising of MedQuAD's 16,407 rows, and of 10 and 100 times as many: noisy
copies in which every copy has its own topics and puts a word of its own in the place of 30 % of the vocabulary. Copies
are thus no duplicates of each other, and each has inside the near duplicates that MedQuAD has. Every scale runs in a
process of its own, so that its peak memory is its own. At most 16,407 rows are tokenised: that is linear and not ours.
Needs ../shared/data and ../shared/tokenizers; writes benchmarks/results/data_speed.json.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any
from zlib import crc32

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
RESULTS = ROOT / "benchmarks" / "results" / "data_speed.json"
NOISE_PERCENT = 30
TOKENISED_ROWS = 16_407


def write_copies(path: Path, copies: int) -> None:
    """MedQuAD and `copies` - 1 noisy copies of it as one CSV."""
    with gzip.open(SHARED / "data" / "medquad.csv.gz", "rt", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(rows[0].keys())
        for copy in range(copies):
            noisy = Noisy(copy)
            for row in rows:
                question, answer = row["Question"], row["Answer"]
                if copy:
                    answer = " ".join(noisy[word] for word in answer.split(" "))
                    question = f"{question.rstrip(' ?')} x{copy} ?"
                writer.writerow([row["qtype"], question, answer])


class Noisy(dict[str, str]):
    """One copy's words: itself for most, and for a fixed share a word that no other copy has."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def __missing__(self, word: str) -> str:
        changed = crc32(f"{word} {self.number}".encode()) % 100 < NOISE_PERCENT
        self[word] = f"{word}x{self.number}" if changed else word
        return self[word]


def measure(path: Path, out: Path) -> dict[str, Any]:
    """Run the stage on `path`, then tokenise what it wrote; called in a process of its own."""
    from medtune.data import stage
    from medtune.recipe_file import validate
    from medtune.run_dir import RunDir, read_json

    tree = {
        "name": "speed",
        "model": {"base": "scratch"},
        "data": {"sources": [{"layout": "medquad_csv", "path": str(path)}]},
    }
    run_dir = RunDir(out)
    started, begun = time.perf_counter(), time.process_time()
    stage.run(validate(tree, "benchmark"), run_dir)
    seconds, cpu = time.perf_counter() - started, time.process_time() - begun
    memory = peak_bytes()
    started = time.perf_counter()
    rows, tokens = tokenise(run_dir)
    tokenise_seconds = time.perf_counter() - started
    card = read_json(run_dir.data / "data_card.json")
    return {
        "rows": card["sources"][0]["rows"],
        "conversations": card["conversations"],
        "input_bytes": path.stat().st_size,
        "stage_seconds": round(seconds, 2),
        "stage_cpu_seconds": round(cpu, 2),
        "stage_peak_memory_bytes": memory,
        "tokenised_rows": rows,
        "tokens": tokens,
        "tokenise_seconds": round(tokenise_seconds, 2),
        "total_seconds": round(seconds + tokenise_seconds, 2),
        "total_cpu_seconds": round(time.process_time() - begun, 2),
        "total_peak_memory_bytes": peak_bytes(),
        "splits": {name: size["share"] for name, size in card["splits"].items()},
        "leakage": card["leakage"],
    }


def tokenise(run_dir: Any) -> tuple[int, int]:
    """Rows and tokens of the three splits, with GPT-2's tokenizer, import included."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(SHARED / "tokenizers" / "gpt2")
    rows = tokens = 0
    remaining = islice(texts(run_dir), TOKENISED_ROWS)
    while batch := list(islice(remaining, 1000)):
        rows += len(batch)
        tokens += sum(len(ids) for ids in tokenizer(batch)["input_ids"])
    return rows, tokens


def texts(run_dir: Any) -> Iterator[str]:
    from medtune.data.split import NAMES
    from medtune.run_dir import read_lines

    for name in NAMES:
        for line in read_lines(run_dir.split(name)):
            yield "\n".join(message["content"] for message in line["messages"])


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def machine() -> dict[str, Any]:
    model = "unknown"
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), model)
    return {"cpus": os.cpu_count(), "model": model, "python": platform.python_version(), "load": os.getloadavg()[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--copies", type=int, nargs="+", default=[1, 10, 100], help="multiples of MedQuAD to measure")
    parser.add_argument("--child", nargs=2, type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        result = measure(*arguments.child)
        (arguments.child[1] / "result.json").write_text(json.dumps(result))
        return
    results = json.loads(RESULTS.read_text())["scales"] if RESULTS.exists() else {}
    for copies in arguments.copies:
        with tempfile.TemporaryDirectory() as folder:
            path, out = Path(folder) / "medquad.csv", Path(folder) / "run"
            write_copies(path, copies)
            before = machine()
            command = [sys.executable, __file__, "--child", str(path), str(out)]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            results[str(copies)] = {"machine": before, **json.loads((out / "result.json").read_text())}
        print(json.dumps({copies: results[str(copies)]}, indent=1), flush=True)
        RESULTS.write_text(json.dumps({"scales": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
