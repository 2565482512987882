"""What the guards cost and how well they recognise: latency with and without the encoder, the written test sets plain
and perturbed.

    python benchmarks/guards.py [--quick]

Writes benchmarks/results/guards.json. Latency is one whole `check` of a real patient's message (MeQSum where
../shared/data is there, else the written questions), one at a time on one thread: seconds on the clock, and seconds of
the processor, which other programs on the machine do not change.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from medtune.assistant import cases, guard_report
from medtune.assistant.cases import Case
from medtune.assistant.guards import Guards, check, load_guards
from medtune.assistant.perturb import KINDS, perturb
from medtune.models.encoder import load_encoder
from medtune.recipe_assistant import GuardsSection
from medtune.run_dir import environment, write_json
from medtune.types import Message

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"
RESULT = ROOT / "benchmarks" / "results" / "guards.json"
SETS = ("emergency", "crisis", "scope", "injection")


def perturbed(given: list[Case]) -> list[Case]:
    """Each case with its last turn typed in one of the ways, in turn."""
    return [
        replace(c, messages=(*c.messages[:-1], Message("user", perturb(c.text, KINDS[n % len(KINDS)]))))
        for n, c in enumerate(given)
    ]


def latency(guards: Guards, texts: list[str]) -> dict[str, float]:
    """Milliseconds of one check: median and 95th percentile, on the clock and on the processor."""
    clock, processor = [], []
    for text in texts[:3] + texts:
        before = time.perf_counter(), time.process_time()
        check(guards, [Message("user", text)])
        clock.append(1000 * (time.perf_counter() - before[0]))
        processor.append(1000 * (time.process_time() - before[1]))
    return {
        f"{name}_{share}_ms": round(statistics.quantiles(values[3:], n=100)[share - 1], 2)
        for name, values in (("clock", clock), ("processor", processor))
        for share in (50, 95)
    }


def recognition(guards: Guards, given: list[Case]) -> dict[str, dict[str, Any]]:
    measured = guard_report.measure(given, guard_report.verdicts(guards, given))
    figures = ("sensitivity", "specificity", "auroc")
    return {one.label: {name: guard_report.plain(getattr(one, name)) for name in figures} for one in measured}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="every tenth case, to see whether it runs")
    step = 10 if parser.parse_args().quick else 1
    torch.set_num_threads(1)
    sets = {name: cases.read(cases.EXAMPLES / f"{name}_test.jsonl")[::step] for name in SETS}
    real = [text for text, _ in cases.patients(DATA)] if DATA.is_dir() else [case.text for case in sets["scope"]]
    result: dict[str, Any] = {"environment": environment(), "cores": os.cpu_count(), "checks": len(real[:: 5 * step])}
    console, table = Console(), Table("", "set", "sensitivity", "specificity", "AUROC", title="guards")
    for mode, encoder in (("words", None), ("encoder", load_encoder("auto"))):
        if mode == "encoder" and encoder is None:
            continue
        guards = load_guards(GuardsSection(), encoder)
        result[mode] = {"latency": latency(guards, real[:: 5 * step])}
        for name, given in sets.items():
            for way, chosen in (("plain", given), ("perturbed", perturbed(given))):
                figures = result[mode][f"{name}, {way}"] = recognition(guards, chosen)
                for label, one in figures.items():
                    values = [one[key]["value"] for key in ("sensitivity", "specificity", "auroc")]
                    cells = ["" if value is None else f"{value:.3f}" for value in values]
                    table.add_row(mode, f"{name}: {label}, {way}", *cells)
        console.print(mode, result[mode]["latency"])
    console.print(table)
    if step == 1:
        write_json(RESULT, result)
        console.print(f"written: {RESULT}")


if __name__ == "__main__":
    main()
