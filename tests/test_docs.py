"""Documents that describe code are generated or checked."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def test_generated_pages_are_up_to_date():
    done = subprocess.run([sys.executable, "tools/docs.py", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\((?!http)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_readme_lists_every_recipe_and_every_module():
    readme = (ROOT / "README.md").read_text()
    for recipe in (ROOT / "recipes").glob("*.yaml"):
        assert f"(recipes/{recipe.name})" in readme
    for module in (ROOT / "src" / "medtune").iterdir():
        if module.is_dir() and any(module.glob("*.py")) and module.name != "__pycache__":
            assert f"{module.name}/" in readme
        elif module.suffix == ".py" and module.name != "__init__.py":
            assert module.name in readme


def test_readme_shows_a_recipe_that_loads(tmp_path):
    from medtune import recipe_file

    example = re.search(r"```yaml\n(.+?)```", (ROOT / "README.md").read_text(), re.DOTALL)[1]
    (tmp_path / "r.yaml").write_text(example)
    shown = recipe_file.load(tmp_path / "r.yaml")
    real = recipe_file.load(ROOT / "recipes" / f"{shown.name}.yaml")
    assert shown.tune.lora == real.tune.lora
    assert shown.tune.learning_rate == real.tune.learning_rate
