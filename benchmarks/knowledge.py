"""How fast knowledge is indexed and searched, and what each way of searching finds: python benchmarks/knowledge.py

Builds the index of all of MedQuAD from nothing, searches it with MeQSum's messages one by one, and measures five ways
of searching on the messages that MedQuAD answers by the rules of tools/search_proxy.py: BM25 over the whole message,
MiniLM against MedQuAD's questions or its texts, reciprocal rank fusion of the three, and medtune's own search, whose
figures are cross-validated by tools/fit_search.py. Needs ../shared/data; writes benchmarks/results/knowledge.json.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "data"
RESULTS = ROOT / "benchmarks" / "results"
sys.path.append(str(ROOT / "tools"))

from search_proxy import FOLDS, HELD_OUT, Query, judge, read_messages  # noqa: E402

from medtune.knowledge.evaluate import evaluate  # noqa: E402
from medtune.knowledge.index import Index, build, open_index  # noqa: E402
from medtune.knowledge.passages import Entry, read_entries  # noqa: E402
from medtune.knowledge.search import search  # noqa: E402
from medtune.models.encoder import Encoder, load_encoder  # noqa: E402
from medtune.recipe_assistant import KnowledgeSource  # noqa: E402


def usual(index: Index, text: str) -> dict[str, list[int]]:
    """The ten best rows by each of the usual ways."""
    vector = index.encoder.encode([text])[0]
    ways = {
        "BM25": index.by_words(text),
        "MiniLM on questions": index.by_meaning("questions", vector),
        "MiniLM on texts": index.by_meaning("texts", vector),
    }
    ways["reciprocal rank fusion"] = sum(1 / (60 + np.argsort(np.argsort(-s, kind="stable"))) for s in ways.values())
    return {name: np.argsort(-scores, kind="stable")[:10].tolist() for name, scores in ways.items()}


def milliseconds(index: Index, texts: list[str]) -> dict[str, float]:
    for text in texts[:5]:
        search(index, text, 10)
    walls, cpus = [], []
    for text in texts:
        wall, cpu = time.perf_counter(), time.process_time()
        search(index, text, 10)
        walls.append(1000 * (time.perf_counter() - wall))
        cpus.append(1000 * (time.process_time() - cpu))
    return {
        "median": round(float(np.median(walls)), 1),
        "p95": round(float(np.quantile(walls, 0.95)), 1),
        "median_cpu": round(float(np.median(cpus)), 1),
        "p95_cpu": round(float(np.quantile(cpus, 0.95)), 1),
    }


def build_times(folder: Path, encoder: Encoder, entries: list[Entry]) -> dict[str, float]:
    """Seconds to index all of MedQuAD, and to bring the index up to date when a hundred passages come and go."""
    wall, cpu = time.perf_counter(), time.process_time()
    build(entries, folder, encoder)
    times = {
        "build_seconds": round(time.perf_counter() - wall, 1),
        "build_cpu_seconds": round(time.process_time() - cpu, 1),
    }
    wall = time.perf_counter()
    build(entries[100:], folder, encoder)
    times["update_seconds"] = round(time.perf_counter() - wall, 1)
    build(entries, folder, encoder)
    return times


def figures_of(index: Index, queries: list[Query]) -> dict[str, dict[str, dict[str, dict[str, float]]]]:
    """Way of searching -> part of the messages -> figure. medtune's own are those of tools/fit_search.py."""
    ids = list(index.row_of)
    found = {query.id: usual(index, query.message) for query in queries}
    figures: dict[str, dict[str, dict[str, dict[str, float]]]] = {}
    for part, folds in {"chosen on": set(range(FOLDS)) - HELD_OUT, "held out": HELD_OUT}.items():
        own = {query.id: query.grades for query in queries if query.fold in folds}
        for way in next(iter(found.values())):
            measured = evaluate({name: [ids[row] for row in found[name][way]] for name in own}, own)
            figures.setdefault(way, {})[part] = {k: dataclasses.asdict(f) for k, f in measured.items()}
    fitted = json.loads((RESULTS / "knowledge_fit.json").read_text())
    return figures | {"medtune": fitted["rank"], "medtune by words alone": fitted["rank_by_words"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--index", type=Path, help="an index of MedQuAD: search this one and time no build")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    encoder = load_encoder("auto")
    path = RESULTS / "knowledge.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    machine = {"model": platform.machine(), "threads": arguments.threads, "load": round(os.getloadavg()[0], 1)}
    messages = read_messages(SHARED / "consumer_questions_meqsum.jsonl.gz")
    entries = read_entries([KnowledgeSource(path=str(SHARED / "medquad_xml.tar.gz"), layout="medquad_xml")])
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.index or Path(temporary) / "index"
        if arguments.index is None:
            results["build"] = {"machine": machine, "passages": len(entries), **build_times(folder, encoder, entries)}
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        texts = [row["message"] for row in messages[::5]]
        results["search"] = {
            "machine": machine,
            "index_bytes": size,
            "milliseconds": milliseconds(open_index(folder, encoder), texts),
            "by_words_milliseconds": milliseconds(open_index(folder, None), texts),
        }
        results["figures"] = figures_of(open_index(folder, encoder), judge(entries, messages))
    path.write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps({key: value for key, value in results.items() if key != "figures"}, indent=2))
    for way, parts in results["figures"].items():
        shown = "  ".join(
            f"{part}: avg@1 {own['avg@1']['mean']:.3f} recall@10 {own['recall@10']['mean']:.3f}"
            for part, own in parts.items()
        )
        print(f"{way:<24} {shown}")


if __name__ == "__main__":
    main()
