"""Short pre-trainings at equal compute, to choose the size, the learning rate and the mixture of the starter's base.

    python benchmarks/base_pilots.py [--flops 2.5e13] [--only 7m,12m] [--out runs/pilots] [--write]

Each pilot is recipes/starter-base.yaml with a few options changed, stopped after as many updates as the compute buys
(6 operations per parameter and token), 12 rows each. All share one split, in which every trial abstract takes part.
Bits per byte are those of its validation part, by source. With `--write` the table goes to
benchmarks/results/base_pilots.json.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import yaml
from bits_per_byte import bits_by_source

from medtune.data import stage as data_stage
from medtune.recipe import Recipe
from medtune.run_dir import RunDir, environment, read_json, read_lines, write_json, write_lines
from medtune.tuning import stage

ROOT = Path(__file__).resolve().parents[1]
RECIPE = ROOT / "recipes" / "starter-base.yaml"
RESULT = ROOT / "benchmarks" / "results" / "base_pilots.json"
SMALL, MIDDLE = ({"layers": n, "width": w, "heads": w // 64} for n, w in ((6, 256), (8, 320)))
PILOTS: dict[str, dict[str, Any]] = {
    "7m": SMALL,
    "12m": MIDDLE,
    "7m-high-rate": SMALL | {"learning_rate": 6e-3},
    "7m-adamw": SMALL | {"optimizer": "adamw"},
    "7m-no-trials": SMALL | {"without": "trial_reports"},
}
LEARNING_RATE = 3e-3
ROWS, TOKENS_PER_ROW, SCORED = 12, 300, 60


def recipe_for(pilot: dict[str, Any], flops: float) -> Recipe:
    """The pilot's recipe: as many updates of 12 rows as the compute buys."""
    raw = yaml.safe_load(RECIPE.read_text())
    shape = raw["model"]["scratch"]
    shape |= {key: pilot[key] for key in ("layers", "width", "heads")}
    raw["data"]["sources"][3].pop("limit")
    raw["tune"] |= {"learning_rate": LEARNING_RATE} | {
        key: pilot[key] for key in ("learning_rate", "optimizer") if key in pilot
    }
    steps = round(flops / (6 * parameters(shape) * ROWS * TOKENS_PER_ROW))
    raw["tune"] |= {
        "batch_size": ROWS,
        "max_steps": steps,
        "checkpoint_steps": None,
        "evaluations": 1,
        "sample_answers": 0,
    }
    return Recipe(**raw)


def parameters(shape: dict[str, int]) -> int:
    """Weights of the matrices, the tied embedding once."""
    width = shape["width"]
    inner = (width * 8 // 3 + 15) // 16 * 16
    return int(shape["layers"] * (4 * width**2 + 3 * width * inner) + shape["vocabulary"] * width)


def run(name: str, out: Path, flops: float) -> dict[str, Any]:
    """Train one pilot on the shared split, without the source that it leaves out, and score it."""
    pilot, shared, run_dir = PILOTS[name], RunDir(out / "data"), RunDir(out / f"{name}-{flops:.0e}")
    recipe = recipe_for(pilot, flops)
    if not shared.split("train").exists():
        data_stage.run(recipe, shared)
    left_out = pilot.get("without")
    for part in ("train", "validation", "test"):
        rows = [row for row in read_lines(shared.split(part)) if not left_out or left_out not in row["source"]]
        write_lines(run_dir.split(part), rows)
    stage.run(recipe, run_dir)
    story = read_json(run_dir.path / "tuning.json")
    return {
        "pilot": name,
        "flops": flops,
        "parameters": story["parameters_total"],
        **{key: story[key] for key in ("steps", "tokens", "seconds", "tokens_per_second")},
        "bits_per_byte": bits_by_source(run_dir.adapter, read_lines(shared.split("validation")), SCORED),
    }


def main() -> None:
    """Run the pilots that were asked for, in order."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--flops", type=float, default=2.5e13)
    parser.add_argument("--only", default=",".join(PILOTS))
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "pilots")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    done = []
    for name in options.only.split(","):
        done.append(run(name, options.out, options.flops))
        print(json.dumps(done[-1]), flush=True)
    if options.write:
        old = read_json(RESULT)["pilots"] if RESULT.exists() else []
        new = {(row["pilot"], row["flops"]) for row in done}
        kept = [row for row in old if (row["pilot"], row["flops"]) not in new]
        write_json(RESULT, {"environment": environment(), "pilots": [*kept, *done]})


if __name__ == "__main__":
    main()
