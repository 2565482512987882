"""`medtune export RUN --to hub`: the folder of a repository on the Hub, and its upload.

Covered: adapter or merged weights, tokenizer with the run's chat template, model card; an upload that goes on after an
interruption. Not covered: accounts (HF_TOKEN in the environment, as every Hub tool reads it) and Spaces.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from medtune.errors import PrerequisiteError, RecipeError, RunDirError
from medtune.export import merge as merging
from medtune.export.card import is_published, model_card
from medtune.recipe import Recipe
from medtune.run_dir import RunDir, read_json, write_json, write_text


def prepare(recipe: Recipe, run_dir: RunDir, folder: Path, weights: str) -> None:
    """Write what the repository will hold to `folder`. Raises as `merge`; RunDirError where nothing was tuned."""
    if weights == "merged":
        merging.merge(recipe, run_dir, folder)
    else:
        if not (run_dir.adapter / "adapter_config.json").exists():
            raise RunDirError(
                f"{run_dir.adapter}: no adapter lies here. A fully tuned model is exported with --weights merged; "
                f"where nothing was tuned, run: medtune run RECIPE --out {run_dir.path}"
            )
        if not is_published(recipe.model.base):
            raise RecipeError(
                f"model.base: {recipe.model.base} is not on the Hub, so nobody else could load this adapter. "
                "Export the merged model: --weights merged."
            )
        merging.require_free(folder)
        template, tokenizer = merging.opened(recipe, run_dir)
        new = folder.with_name(f".{folder.name}.new")
        shutil.rmtree(new, ignore_errors=True)
        shutil.copytree(run_dir.adapter, new)
        merging.write_tokenizer(new, template, tokenizer)
        facts = read_json(new / "adapter_config.json")
        write_json(new / "adapter_config.json", {**facts, "base_model_name_or_path": recipe.model.base})
        write_json(new / "medtune.json", {"chat_template": template.hash})
        shutil.rmtree(folder, ignore_errors=True)
        new.rename(folder)
    write_text(folder / "README.md", model_card(recipe, run_dir, weights))


def push(folder: Path, repository: str, *, private: bool = True) -> str:
    """Upload `folder`; called again after an interruption it sends only what is missing. Returns the address.

    Raises PrerequisiteError where the Hub cannot be reached or refuses.
    """
    import httpx2 as httpx  # what huggingface_hub speaks through
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi()
    try:
        made = api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=folder, commit_message="medtune export")
    except HfHubHTTPError as error:
        first = str(error).splitlines()[0]
        raise PrerequisiteError(
            f"{repository}: the Hub refuses ({first}). Set HF_TOKEN to a token that may write there; the same command "
            "goes on with what is missing."
        ) from error
    except (httpx.HTTPError, OSError) as error:
        raise PrerequisiteError(
            f"{repository}: the Hub cannot be reached ({error}). Try again later: the same command goes on with what "
            f"is missing. What would be sent lies in {folder}."
        ) from error
    return str(made)
