"""The tail is bounded: what separates pleasant from unpleasant code is its longest function and largest file."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "src" / "medtune").rglob("*.py")) + sorted((ROOT / "tools").glob("*.py"))
LINES, FUNCTION_LINES, PARAMETERS, BROAD_EXCEPTS = 350, 60, 7, 2


def functions():
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{path.name}:{node.lineno} {node.name}", node


def test_files_are_short():
    assert len(FILES) > 15
    lengths = {path.name: len(path.read_text().splitlines()) for path in FILES}
    assert {name: length for name, length in lengths.items() if length > LINES} == {}


def test_functions_are_short():
    lengths = {name: node.end_lineno - node.lineno + 1 for name, node in functions()}
    assert {name: length for name, length in lengths.items() if length > FUNCTION_LINES} == {}


def test_functions_have_few_parameters():
    counts = {}
    for name, node in functions():
        arguments = node.args
        named = arguments.posonlyargs + arguments.args + arguments.kwonlyargs
        counts[name] = len([a for a in named if a.arg not in ("self", "cls")])
    assert {name: count for name, count in counts.items() if count > PARAMETERS} == {}


def test_broad_excepts_are_rare():
    broad = [
        f"{path.name}:{node.lineno}"
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or (isinstance(node.type, ast.Name) and node.type.id in ("Exception", "BaseException")))
    ]
    assert len(broad) <= BROAD_EXCEPTS, broad
