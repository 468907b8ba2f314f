"""The rules of the house, from the files alone: commands apart from the library, and arrows that run one way."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMMANDS = sorted(ROOT.glob("examples/*.py"))
# Each sub-package with those of the others that it may import.
ARROWS = {
    "data": set(),
    "evaluation": {"data"},
    "sharing": {"data", "evaluation"},
    "mobile": set(),
    "deployment": {"data", "evaluation", "mobile"},
    "training": {"data", "evaluation", "sharing"},
}


def imports(path: Path) -> set[str]:
    """The modules that a file imports, with a dot for each level of a relative import."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add("." * node.level + (node.module or ""))
    return found


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: path.stem)
def test_a_command_runs_by_itself_and_imports_no_other(path):
    assert '__name__ == "__main__"' in path.read_text(encoding="utf-8")
    assert not imports(path) & {other.stem for other in COMMANDS}


@pytest.mark.parametrize("package", ARROWS)
def test_a_sub_package_imports_only_those_below_it(package):
    assert (ROOT / "hear_hf" / package / "__init__.py").is_file()
    for path in ROOT.glob(f"hear_hf/{package}/*.py"):
        others = {match[1] for name in imports(path) if (match := re.match(r"\.\.(\w+)\.", name))}
        assert others <= ARROWS[package], path
        assert not any(name.startswith(("examples", "hear_hf.")) for name in imports(path)), path


def test_there_is_no_other_sub_package():
    assert {path.parent.name for path in ROOT.glob("hear_hf/*/__init__.py")} == set(ARROWS)


@pytest.mark.parametrize("path", sorted(ROOT.glob("hear_hf/*.py")), ids=lambda path: path.stem)
def test_the_model_imports_no_sub_package(path):
    assert not [name for name in imports(path) if re.match(rf"(hear_hf)?\.({'|'.join(ARROWS)})\b", name)]


def test_no_file_edits_the_path():
    files = [
        path for path in ROOT.rglob("*.py") if not any(part.startswith(".") for part in path.relative_to(ROOT).parts)
    ]
    edits = re.compile(r"sys\.path(\.(append|insert|extend)|\[[^\]]*\]\s*=|\s*=)|site\.addsitedir")
    assert len(files) > 100 and not [path for path in files if edits.search(path.read_text(encoding="utf-8"))]
