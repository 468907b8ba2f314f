"""Sound files of public git repositories, those alone whose licences allow a trained model to be shared."""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..arguments import option
from .free_sounds import free_sets
from .sound_files import SoundFile, SoundFilesArguments, collect


@dataclass
class RepositoryArguments(SoundFilesArguments):
    """Which sets of sounds to take from repositories, how to cut them, and where to put them."""

    output_dir: str = option(
        default="repository_sounds",
        help="Write a table for each set into this folder; those that are there are kept.",
    )
    sets: list[str] | None = option(
        default=None, help="Take these sets of docs/free-sounds.md, by name; by default all of them."
    )
    host: str = option(default="https://github.com", help="Fetch the repositories from this URL or folder.")


def collect_repository_sounds(args: RepositoryArguments) -> int:
    """
    Writes for each set a table of its clips.

    Args:
        args (`RepositoryArguments`): The sets, how to cut their files, and where to put the tables.

    Returns:
        `int`: The number of clips.

    Raises:
        `ValueError`: git is missing, a set is unknown, or some set failed.
    """
    if shutil.which("git") is None:
        raise ValueError("Sounds of repositories need git, found no such program: install it.")
    known = free_sets()
    unknown = [name for name in args.sets or [] if name not in known]
    if unknown:
        raise ValueError(f"`sets` must be among those of docs/free-sounds.md, found: {', '.join(unknown)}")
    return collect(args.sets or [*known], partial(_set_files, host=args.host), args)


def _set_files(name: str, host: str) -> Iterator[SoundFile]:
    for (repository, commit), groups in free_sets()[name].files.items():
        with tempfile.TemporaryDirectory() as folder:
            _fetch(f"{host}/{repository}", commit, Path(folder), [path for group in groups for path in group.paths])
            for group in groups:
                for path in group.paths:
                    file = Path(folder) / path
                    data = file.read_bytes() if file.is_file() else None
                    yield SoundFile(path, data, f"{repository}@{commit}", group.licence, group.credit)


def _fetch(address: str, commit: str, folder: Path, paths: list[str]) -> None:
    """Checks out some files at a commit; where the host can, only those are transferred."""

    def git(*words: str, **settings) -> str:
        command = ["git", "--literal-pathspecs", "-C", str(folder), *words]
        return subprocess.run(command, check=True, capture_output=True, encoding="utf-8", **settings).stdout

    git("init", "--quiet")
    git("remote", "add", "origin", address)
    git("fetch", "--quiet", "--depth", "1", "--filter", "blob:none", "origin", commit)
    present = set(git("ls-tree", "-r", "-z", "--name-only", "FETCH_HEAD").split("\0")) & set(paths)
    if present:
        options = ("--pathspec-from-file=-", "--pathspec-file-nul")
        git("checkout", "--quiet", "FETCH_HEAD", *options, input="\0".join(sorted(present)))
