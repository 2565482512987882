"""`medtune knowledge`: build an index of passages, search it, and measure how well it is searched."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medtune.commands.opening import open_recipe

if TYPE_CHECKING:
    from medtune.knowledge.index import Index

app = typer.Typer(
    name="knowledge", help="What the assistant may quote: build, search and measure.", no_args_is_help=True
)

IndexPath = Annotated[Path, typer.Argument(metavar="INDEX", help="Folder of an index, or of a run.")]
EncoderName = Annotated[
    str, typer.Option(help="auto (MiniLM where installed), none, a Hub id or a folder; a run has its own.")
]
Depth = Annotated[int, typer.Option("--k", min=1, help="Passages per query.")]


@app.command()
def build(
    recipe: Annotated[
        Path | None, typer.Argument(metavar="RECIPE", help="A recipe (YAML) or a run's folder, for its sources.")
    ] = None,
    source: Annotated[
        list[str] | None,
        typer.Option(metavar="LAYOUT:PATH", help="A source in place of a recipe's; may be given several times."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the index. [default: the run's knowledge/]")] = None,
    encoder: EncoderName = "auto",
) -> None:
    """Build an index, or bring it up to date: only what is new is encoded."""
    if (recipe is None) == (not source):
        raise typer.BadParameter("needs a recipe, or sources: --source LAYOUT:PATH", param_hint="RECIPE")
    from medtune.knowledge import stage

    if recipe is not None:
        resolved, run_dir = open_recipe(recipe)
        section, folder = resolved.assistant.knowledge, out or stage.folder(run_dir)
    elif out is None:
        raise typer.BadParameter("sources without a recipe need a folder", param_hint="--out")
    else:
        section, folder = stage.section_of(source or [], encoder), out
    stage.build_section(section, folder)


@app.command()
def search(
    index: IndexPath,
    text: Annotated[str | None, typer.Argument(help="What is asked.")] = None,
    k: Depth = 10,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    queries: Annotated[
        Path | None, typer.Option(metavar="FILE.jsonl", help='Many queries: lines {"id", "text"}.', exists=True)
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="With --queries: file for the hits, one JSON line per query.")
    ] = None,
    encoder: EncoderName = "auto",
) -> None:
    """The passages that answer a question, best first."""
    if (text is None) == (queries is None):
        raise typer.BadParameter("needs a text, or --queries FILE.jsonl", param_hint="TEXT")
    if (queries is None) != (out is None):
        raise typer.BadParameter("--queries FILE.jsonl and --out FILE.jsonl belong together", param_hint="--out")
    from medtune.knowledge import evaluate as measuring
    from medtune.knowledge.search import search as find

    opened = _open(index, encoder)
    if queries is not None and out is not None:
        found = measuring.search_all(opened, measuring.read_queries(queries), k)
        measuring.write_hits(out, found)
        print(f"{out}: hits of {len(found)} queries")
        return
    hits = find(opened, text or "", k)
    if as_json:
        rows = [{"score": round(hit.score, 6), **dataclasses.asdict(hit.passage)} for hit in hits]
        print(json.dumps([{"passage": row.pop("id"), **row} for row in rows], ensure_ascii=False, indent=2))
        return
    measuring.show_hits(hits)


@app.command()
def evaluate(
    index: IndexPath,
    queries: Annotated[Path, typer.Option(metavar="FILE.jsonl", help='Lines {"id", "text"}.', exists=True)],
    judgments: Annotated[
        Path, typer.Option(metavar="FILE.jsonl", help='Lines {"query", "passage", "grade"}.', exists=True)
    ],
    k: Depth = 10,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    encoder: EncoderName = "auto",
) -> None:
    """avg@1, nDCG@10, MRR, recall@k and judged@k with 95 % intervals; what was not judged counts as wrong."""
    from medtune.knowledge import evaluate as measuring

    grades = measuring.read_judgments(judgments)
    found = measuring.search_all(_open(index, encoder), measuring.read_queries(queries), max(k, measuring.DEPTH))
    figures = measuring.evaluate({q: [hit.passage.id for hit in hits] for q, hits in found.items()}, grades, k)
    if as_json:
        print(json.dumps({name: dataclasses.asdict(figure) for name, figure in figures.items()}, indent=2))
    else:
        measuring.show(figures)


def _open(folder: Path, encoder: str) -> Index:
    """The index in `folder`, or the one of the run in `folder` with the run's own encoder."""
    from medtune.errors import RunDirError
    from medtune.knowledge import stage
    from medtune.knowledge.index import open_index
    from medtune.models.encoder import load_encoder

    if not (folder / "recipe.json").exists():
        return open_index(folder, load_encoder(encoder))
    opened = stage.open_run(*open_recipe(folder))
    if opened is None:
        raise RunDirError(f"{folder}: its recipe has no knowledge sources (assistant.knowledge.sources is empty).")
    return opened
