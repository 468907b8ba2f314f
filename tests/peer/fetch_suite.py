"""Fetches the tests that Transformers shares among its models, of the installed version, into `.peer/`.

They are in the source distribution of that version, not in its wheel. pip compares it with the index's checksum.
"""

import subprocess
import sys
import tarfile
import tempfile
from importlib.metadata import version
from pathlib import Path

CACHE = Path(__file__).parents[2] / ".peer"
NEEDED = ("configuration", "modeling", "sequence_feature_extraction")


def suite_folder() -> Path:
    """Where the tests of the installed version are, or will be."""
    return CACHE / f"transformers-{version('transformers')}"


def fetch(folder: Path) -> None:
    """Downloads the source distribution, and moves its `tests/test_*.py` to `folder` once they are complete."""
    CACHE.mkdir(exist_ok=True)
    (CACHE / ".gitignore").write_text("*\n")
    requirement = folder.name.replace("transformers-", "transformers==")
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        # Without isolation: pip asks the package for its name and version, for which torch's setuptools will do.
        options = ["--no-binary=:all:", "--no-deps", "--no-build-isolation", "--quiet", "--disable-pip-version-check"]
        subprocess.run([sys.executable, "-m", "pip", "download", *options, "-d", scratch, requirement], check=True)
        (archive,) = Path(scratch).glob("*.tar.gz")
        with tarfile.open(archive) as source:
            tests = [member for member in source if Path(member.name).match("tests/test_*.py")]
            source.extractall(scratch, tests, filter="data")
        require_suite(Path(scratch, folder.name, "tests"), archive.name)
        Path(scratch, folder.name).rename(folder)


def require_suite(tests: Path, archive: str) -> None:
    missing = [name for name in (f"test_{kind}_common.py" for kind in NEEDED) if not (tests / name).is_file()]
    if missing:
        raise SystemExit(
            f"{archive} must hold {', '.join(missing)} in tests/, found no such file. Take another version of "
            "Transformers, or bring tests/peer/ up to date with this one."
        )


if __name__ == "__main__":
    if not suite_folder().is_dir():
        fetch(suite_folder())
    print(suite_folder())
