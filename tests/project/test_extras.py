"""Each sub-package beside its extra: it imports with that extra alone, and without it names it."""

import importlib.metadata
import json
import subprocess
import sys

import pytest
from packaging.requirements import Requirement
from test_packaging import EXTRAS, ROOT, SUB_PACKAGES, modules_of, third_party_imports

MODULES = {"scikit-learn": "sklearn"}  # by distributions that are named otherwise

# Imports sub-packages, each in a process of its own where some other packages cannot be found.
IMPORT = """
import importlib, json, os, sys

import hear_hf


class Without:
    def __init__(self, finder, names):
        self.finder, self.names = finder, names

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in self.names else self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)


for modules, names in json.load(sys.stdin):
    if os.fork() == 0:
        sys.meta_path = [Without(finder, set(names)) for finder in sys.meta_path]
        try:
            for module in modules:
                importlib.import_module(module)
            result = "imported"
        except Exception as error:
            result = str(error)
        print(json.dumps([modules[0], result]), flush=True)
        os._exit(0)
    os.wait()
"""


def modules_in(package: str) -> list[str]:
    files = sorted((ROOT / "hear_hf" / package).glob("*.py"))
    return [f"hear_hf.{package}"] + [f"hear_hf.{package}.{file.stem}" for file in files if file.stem != "__init__"]


def import_with(cases: list[tuple[list[str], set[str]]]) -> list[list[str]]:
    """The first of the modules of each case, and `imported` or the error, where only some packages are installed."""
    installed = {*importlib.metadata.packages_distributions()} - {"hear_hf"}
    given = json.dumps([(modules, sorted(installed - names)) for modules, names in cases])
    result = subprocess.run([sys.executable, "-c", IMPORT], input=given, capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def brought_by(extra: str) -> set[str] | None:
    """The modules that an extra brings, or `None` where it is not installed."""
    try:
        return modules_of(extra)
    except pytest.skip.Exception:
        return None


@pytest.fixture(scope="module")
def found():
    """What comes of each sub-package whose extra is installed with it alone, and of each with none; in one process."""
    brought = {package: brought_by(extra) for extra, package in SUB_PACKAGES.items()}
    cases = [(modules_in(package), modules) for package, modules in brought.items() if modules is not None]
    results = import_with(cases + [([f"hear_hf.{package}"], modules_of("")) for package in SUB_PACKAGES.values()])
    return results[: len(cases)], results[len(cases) :]


def test_each_sub_package_imports_with_its_extra_alone(found):
    assert len(found[0]) >= 4 and {result for _, result in found[0]} == {"imported"}, found[0]


def test_a_missing_extra_is_an_error_that_gives_the_command_that_installs_it(found):
    for (module, error), extra in zip(found[1], SUB_PACKAGES, strict=True):
        assert error.startswith(f"{module} needs ") and error.endswith(f'pip install "hear_hf[{extra}]"'), error


# Imported not by us, but by Transformers' Trainer and by torch's exporter, which ours call.
IMPORTED_FOR_US = {"train": {"accelerate"}, "onnx": {"onnxscript"}}


@pytest.mark.parametrize("extra", SUB_PACKAGES)
def test_an_extra_adds_only_what_its_sub_package_imports(extra):
    files = (ROOT / "hear_hf" / SUB_PACKAGES[extra]).glob("*.py")
    imported = set().union(*(third_party_imports(file)[0] for file in files)) | IMPORTED_FOR_US.get(extra, set())
    added = {Requirement(line).name for line in EXTRAS[extra]} - {"hear_hf"}
    assert {MODULES.get(name, name) for name in added} <= imported
