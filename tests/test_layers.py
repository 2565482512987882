"""Imports point one way. The table is the rule; a new top-level module must be put into it."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "src" / "medtune"
LAYERS = [
    {"errors", "types"},
    {"recipe_section"},
    {"recipe_assistant", "recipe_evaluate", "recipe_sweep"},
    {"recipe"},
    {"recipe_file", "run_dir"},
    {"data", "models"},
    {"knowledge"},
    {"tuning", "evaluation", "assistant"},
    {"serving", "export"},
    {"pipeline"},
    {"check", "runs", "sweep_study"},
    {"sweep"},
    {"rehearse"},
    {"commands"},
    {"cli"},
]
WITHOUT_TORCH = {
    *("errors", "types", "recipe_section", "recipe_assistant", "recipe_evaluate", "recipe_sweep", "recipe"),
    *("recipe_file", "run_dir", "data", "pipeline", "check", "rehearse", "commands", "cli"),
}
HEAVY = {"torch", "transformers", "peft", "accelerate", "datasets", "bitsandbytes", "sklearn", "trl"}


def layer_of(name: str) -> int:
    return next(number for number, names in enumerate(LAYERS) if name in names)


def imports(tree: ast.AST) -> set[str]:
    """Full names of what is imported anywhere below `tree`."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide the layer"
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def modules() -> list[tuple[str, Path]]:
    return [(path.relative_to(PACKAGE).parts[0].removesuffix(".py"), path) for path in PACKAGE.rglob("*.py")]


def at_import(tree: ast.Module) -> set[str]:
    """What importing the module imports: everything outside functions and `if TYPE_CHECKING:`."""
    found = set()
    for node in tree.body:
        guarded = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        if not guarded and not isinstance(node, ast.FunctionDef | ast.ClassDef):
            found |= imports(node)
    return found


def test_imports_point_down():
    wrong = []
    for name, path in modules():
        if name == "__init__":
            continue
        for imported in imports(ast.parse(path.read_text())):
            if not imported.startswith("medtune."):
                continue
            other = imported.split(".")[1]
            if other != name and layer_of(other) >= layer_of(name):
                wrong.append(f"{path.relative_to(PACKAGE)} imports {imported}")
    assert not wrong


def test_layers_are_not_vacuous():
    assert {name for name, _ in modules()} > {"cli", "pipeline", "data", "models", "tuning", "evaluation"}


def test_light_modules_import_nothing_heavy():
    wrong = [
        f"{path.relative_to(PACKAGE)}: {heavy}"
        for name, path in modules()
        if name in WITHOUT_TORCH
        for heavy in {i.split(".")[0] for i in at_import(ast.parse(path.read_text()))} & HEAVY
    ]
    assert not wrong


def test_stage_packages_reexport_nothing():
    assert [path for path in PACKAGE.rglob("*/__init__.py") if path.parent != PACKAGE and path.read_text()] == []
