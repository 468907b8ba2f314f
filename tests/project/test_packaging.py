"""What is released and what it asks for: the wheel and the sdist, the extras beside the imports, the constraints."""

import ast
import importlib.metadata
import itertools
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.parser import HeaderParser
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import hear_hf

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
FOLDERS = ("benchmarks", "conversion", "docs", "examples", "tests")

SUB_PACKAGES = {
    "data": "data",
    "evaluation": "evaluation",
    "sharing": "sharing",
    "train": "training",
    "onnx": "deployment",
    "executorch": "mobile",
}
DEVICE = ROOT / "examples" / "run_onnx.py"  # runs where hear_hf is not installed
TFLITE = ROOT / "conversion" / "tflite_file.py"
TFLITE_TESTS = ROOT / "tests" / "tflite_files.py"  # imported only where `tflite` is installed
PAGE = ROOT / "examples" / "web" / "build_page.py"
RUNTIMES = {ROOT / "benchmarks" / name for name in ("runtimes.py", "runtime_contestants.py")}
SCRIPTS = {  # by the extra that is enough to run them
    "": {*ROOT.glob("hear_hf/*.py"), *ROOT.glob("conversion/**/*.py")} - {TFLITE},
    "conversion": {TFLITE},
    **{extra: {*ROOT.glob(f"hear_hf/{package}/*.py")} for extra, package in SUB_PACKAGES.items()},
    "demo": {*ROOT.glob("examples/*.py"), *ROOT.glob("benchmarks/*.py")} - {DEVICE} - RUNTIMES,
    "space": {*ROOT.glob("examples/space/**/*.py")},
    "test": {*ROOT.glob("tests/**/*.py")} - {*ROOT.glob("tests/peer/*.py"), TFLITE_TESTS},
}
SCRIPTS["onnx"] |= {PAGE, *RUNTIMES}
OUR_MODULES = {"hear_hf", "teacher_models", "audio", DEVICE.stem, TFLITE_TESTS.stem} | {
    path.stem for paths in SCRIPTS.values() for path in paths if path.relative_to(ROOT).parts[0] != "hear_hf"
}
# For the microphone, formats that soundfile cannot read, spoken digits, metrics of events, adapters, a cluster,
# OpenVINO and LiteRT, which say so themselves; and for a faster search, which goes without.
OPTIONAL = {"sounddevice", "torchcodec", "espeakng_loader", "sed_scores_eval", "ray", "faiss", "peft"}
OPTIONAL |= {"openvino", "nncf", "litert_torch", "ai_edge_litert"}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder with the sdist and the wheel, which is built from the sdist."""
    pytest.importorskip("build", reason="building needs the extra `dev`")
    folder = tmp_path_factory.mktemp("packaging")
    junk = shutil.ignore_patterns(".*", "*.egg-info", "build", "dist", "runs", "outputs", "checkpoint-*")
    tree = shutil.copytree(ROOT, folder / "tree", ignore=junk)
    (tree / "tests" / "__pycache__").mkdir(exist_ok=True)
    (tree / "tests" / "__pycache__" / "helpers.pyc").touch()
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, tree]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return folder


@pytest.fixture(scope="module")
def wheel(built):
    with zipfile.ZipFile(next(built.glob("*.whl"))) as file:
        yield file


def test_the_wheel_holds_the_package_its_data_files_its_type_marker_and_the_license_alone(wheel):
    names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    files = {*ROOT.glob("hear_hf/**/*.py"), *ROOT.glob("hear_hf/sharing/templates/*.md")}
    files |= {ROOT / "hear_hf" / "data" / "free_sounds.json"}
    files |= {ROOT / "hear_hf" / "sharing" / "templates" / "endpoint" / "requirements.txt"}
    assert names == {"hear_hf/py.typed"} | {path.relative_to(ROOT).as_posix() for path in files}
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in wheel.namelist())


def test_the_wheel_states_version_license_python_and_extras(wheel):
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    stated = HeaderParser().parsestr(wheel.read(name).decode())
    assert (stated["Version"], stated["License-Expression"]) == (hear_hf.__version__, "MIT")
    assert stated["Requires-Python"] == PROJECT["requires-python"]
    assert set(stated.get_all("Provides-Extra")) == set(EXTRAS)


def test_the_sdist_holds_the_tests_the_scripts_and_the_documentation(built):
    with tarfile.open(next(built.glob("*.tar.gz"))) as file:
        names = {name.partition("/")[2] for name in file.getnames()}
    files = {path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.is_file()}
    files |= {*ROOT.glob("*.md"), *ROOT.glob("constraints*.txt"), ROOT / "Makefile"}
    expected = {path.relative_to(ROOT).as_posix() for path in files if "__pycache__" not in path.parts}
    assert expected <= names
    assert not [name for name in names if name.endswith(".pyc")]


def third_party_imports(path: Path) -> tuple[set[str], set[str]]:
    """Top-level modules that a file imports anywhere, neither ours nor Python's, and those without which it skips."""
    imported, skipped = set(), set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Import():
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            case ast.ImportFrom(level=0):
                imported.add(node.module.partition(".")[0])
            case ast.Call(func=ast.Attribute(attr="importorskip"), args=[ast.Constant(value=name), *_]):
                skipped.add(name.partition(".")[0])
    return imported - skipped - OUR_MODULES - OPTIONAL - sys.stdlib_module_names, skipped


def own_requirements(*extras: str) -> list[Requirement]:
    return [Requirement(line) for lines in (PROJECT["dependencies"], *map(EXTRAS.get, extras)) for line in lines]


def requirements(of: Requirement) -> list[Requirement]:
    """What a distribution asks for here: ours by pyproject.toml, another by its metadata."""
    if of.name == "hear_hf":
        return own_requirements(*of.extras)
    asked = map(Requirement, importlib.metadata.requires(of.name) or [])
    return [
        each for each in asked if not each.marker or any(each.marker.evaluate({"extra": e}) for e in ("", *of.extras))
    ]


def modules_of(extra: str) -> set[str]:
    """The modules that `pip install hear_hf[extra]` brings; skips the test where it is not installed."""
    queue, seen = [Requirement(f"hear_hf[{extra}]")], set()
    while queue:
        requirement = queue.pop()
        if str(requirement) not in seen:
            seen.add(str(requirement))
            try:
                queue += requirements(requirement)
            except importlib.metadata.PackageNotFoundError:
                pytest.skip(f"{requirement.name} of the extra `{extra}` is not installed here")
    installed = {canonicalize_name(Requirement(each).name) for each in seen}
    by_module = importlib.metadata.packages_distributions()
    return {module for module, names in by_module.items() if not installed.isdisjoint(map(canonicalize_name, names))}


@pytest.mark.parametrize("extra", SCRIPTS)
def test_an_extra_alone_brings_all_that_its_scripts_import(extra):
    modules = modules_of(extra)
    missing = {(path.name, name) for path in SCRIPTS[extra] for name in third_party_imports(path)[0] - modules}
    assert SCRIPTS[extra] and not missing


def test_the_dev_extra_brings_all_that_tests_skip_without():
    skipped_without = set().union(*(third_party_imports(path)[1] for path in SCRIPTS["test"]))
    assert skipped_without <= modules_of("dev") | {"torchao", "openvino", "nncf", "executorch", "litert_torch"}


def pins(name: str) -> dict[str, Version]:
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    pairs = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {canonicalize_name(name): Version(version) for name, version in pairs}


def test_the_newest_constraints_pin_every_requirement_within_its_bounds():
    pinned = pins("constraints.txt")
    for requirement in own_requirements(*EXTRAS):
        if requirement.name != "hear_hf":
            assert pinned[canonicalize_name(requirement.name)] in requirement.specifier, requirement


# The floors of the oldest set's extras are its pins; those of the others are tested with the newest set alone.
TESTED_EXTRAS = {
    "constraints-oldest.txt": ("data", "evaluation", "sharing", "train", "demo", "peft"),
    "constraints.txt": ("onnx", "openvino", "executorch", "space", "conversion", "events", "ray", "integrations"),
}
BY_HAND = {"hear_hf", "torch"}  # of torch our machines have one CPU build; CONTRIBUTING.md: how its floor is tested


@pytest.mark.parametrize("constraints", TESTED_EXTRAS)
def test_the_floors_are_what_the_tests_run_with(constraints):
    pinned = pins(constraints)
    lines = [line for extra in TESTED_EXTRAS[constraints] for line in EXTRAS[extra]]
    if constraints == "constraints-oldest.txt":
        lines += PROJECT["dependencies"]
    else:  # what the Space shares with the others is tested with those
        lines = [
            line
            for line in lines
            if line not in itertools.chain(*map(EXTRAS.get, TESTED_EXTRAS["constraints-oldest.txt"]))
        ]
    for requirement in map(Requirement, lines):
        if requirement.name not in BY_HAND:
            (floor,) = (Version(each.version).release for each in requirement.specifier if each.operator == ">=")
            assert pinned[canonicalize_name(requirement.name)].release[: len(floor)] == floor, requirement


def test_only_the_floors_of_development_tools_are_not_tested():
    assert {extra for extras in TESTED_EXTRAS.values() for extra in extras} == set(EXTRAS) - {"test", "dev"}
