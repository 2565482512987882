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

from search_proxy import judge, read_messages  # noqa: E402

from medtune.knowledge.evaluate import evaluate  # noqa: E402
from medtune.knowledge.index import Index, build, open_index  # noqa: E402
from medtune.knowledge.passages import read_entries  # noqa: E402
from medtune.knowledge.search import search  # noqa: E402
from medtune.models.encoder import load_encoder  # noqa: E402
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    threads = parser.parse_args().threads
    torch.set_num_threads(threads)
    encoder = load_encoder("auto")
    messages = read_messages(SHARED / "consumer_questions_meqsum.jsonl.gz")
    machine = {"model": platform.processor() or platform.machine(), "threads": threads, "load": os.getloadavg()[0]}
    with tempfile.TemporaryDirectory() as folder:
        wall, cpu = time.perf_counter(), time.process_time()
        entries = read_entries([KnowledgeSource(path=str(SHARED / "medquad_xml.tar.gz"), layout="medquad_xml")])
        build(entries, Path(folder) / "index", encoder)
        results = {
            "machine": machine,
            "passages": len(entries),
            "build_seconds": round(time.perf_counter() - wall, 1),
            "build_cpu_seconds": round(time.process_time() - cpu, 1),
            "index_bytes": sum(f.stat().st_size for f in Path(folder).rglob("*") if f.is_file()),
        }
        wall = time.perf_counter()
        build(entries[100:], Path(folder) / "index", encoder)
        results["update_seconds"] = round(time.perf_counter() - wall, 1)
        build(entries, Path(folder) / "index", encoder)
        index, by_words = open_index(Path(folder) / "index", encoder), open_index(Path(folder) / "index", None)
        texts = [row["message"] for row in messages[::5]]
        results["search_milliseconds"] = milliseconds(index, texts)
        results["search_by_words_milliseconds"] = milliseconds(by_words, texts)
        queries, ids = judge(entries, messages), list(index.row_of)
        found = {query.id: usual(index, query.message) for query in queries}
        figures = {}
        for part, folds in {"chosen on": (0, 1, 2), "held out": (3, 4)}.items():
            own = {query.id: query.grades for query in queries if query.fold in folds}
            for way in next(iter(found.values())):
                measured = evaluate({name: [ids[row] for row in found[name][way]] for name in own}, own)
                figures.setdefault(way, {})[part] = {k: dataclasses.asdict(f) for k, f in measured.items()}
    fitted = json.loads((RESULTS / "knowledge_fit.json").read_text())
    figures |= {"medtune": fitted["rank"], "medtune by words alone": fitted["rank_by_words"]}
    results["figures"] = figures
    (RESULTS / "knowledge.json").write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps({key: value for key, value in results.items() if key != "figures"}, indent=2))
    for way, parts in figures.items():
        shown = "  ".join(
            f"{part}: avg@1 {own['avg@1']['mean']:.3f} recall@10 {own['recall@10']['mean']:.3f}"
            for part, own in parts.items()
        )
        print(f"{way:<24} {shown}")


if __name__ == "__main__":
    main()
