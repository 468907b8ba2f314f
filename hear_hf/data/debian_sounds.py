"""Sound files of packages of Debian's main archive, whose contents are free by Debian's guidelines.

`apt-get` downloads a package without installing it, from the release that this machine's apt reads.
"""

import io
import shutil
import subprocess
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..arguments import option
from .free_sounds import FreePackage, free_packages
from .sound_files import SUFFIXES, SoundFile, SoundFilesArguments, collect

MAX_FILE_BYTES = 2**28  # of a file, unpacked: a small package may hold terabytes of zeros
ARCHIVE_SUFFIXES = (".pk3", ".pk4", ".wz", ".zip")  # zip files of games
UNKNOWN = FreePackage("", "free by Debian's guidelines", "")


@dataclass
class DebianArguments(SoundFilesArguments):
    """Which packages to take sounds from, how to cut them, and where to put them."""

    output_dir: str = option(
        default="debian_sounds", help="Write a table for each package into this folder; those that are there are kept."
    )
    packages: list[str] | None = option(
        default=None, help="Take these packages, by name or as .deb files; by default all of docs/free-sounds.md."
    )


def collect_debian_sounds(args: DebianArguments) -> int:
    """
    Writes for each package a table of its clips, and beside it Debian's file of authors and licences.

    Args:
        args (`DebianArguments`): The packages, how to cut their files, and where to put the tables.

    Returns:
        `int`: The number of clips.

    Raises:
        `ValueError`: `apt-get` or `dpkg-deb` is missing, or some package failed.
    """
    packages = {_name(package): package for package in args.packages or free_packages()}
    programs = ["dpkg-deb"] if all(map(_is_file, packages.values())) else ["dpkg-deb", "apt-get"]
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        raise ValueError(
            f"Debian's programs must unpack its packages, found no {missing[0]}: run this on Debian or in its image."
        )
    return collect(packages, partial(_package_files, packages=packages, output_dir=Path(args.output_dir)), args)


def _is_file(package: str) -> bool:
    return package.endswith(".deb")


def _name(package: str) -> str:
    return Path(package).stem.split("_")[0] if _is_file(package) else package


def _package_files(name: str, packages: dict[str, str], output_dir: Path) -> Iterator[SoundFile]:
    known = free_packages().get(name, UNKNOWN)
    licence = f"{known.licence}; see {name}.copyright"
    with tempfile.TemporaryDirectory() as folder:
        deb = Path(packages[name]) if _is_file(packages[name]) else _download(packages[name], Path(folder))
        source = f"{name}={_version(deb)}"
        for path, data in _unpack(deb):
            if path.endswith(f"/doc/{name}/copyright"):
                (output_dir / f"{name}.copyright").write_bytes(data)
            elif not path.endswith("/copyright") and Path(path).stem not in known.in_esc50:
                yield SoundFile(path, data, source, licence, known.credit)


def _download(package: str, folder: Path) -> Path:
    subprocess.run(["apt-get", "download", "-qq", package], cwd=folder, check=True, capture_output=True)
    (deb,) = folder.glob("*.deb")
    return deb


def _version(deb: Path) -> str:
    command = ["dpkg-deb", "--field", str(deb), "Version"]
    return subprocess.run(command, check=True, capture_output=True, encoding="utf-8").stdout.strip()


def _unpack(deb: Path) -> Iterator[tuple[str, bytes]]:
    """Names and bytes of the audio files of a package, also of those in its zip files, and of its copyright file."""
    command = ["dpkg-deb", "--fsys-tarfile", str(deb)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as unpacked:
        try:
            with tarfile.open(fileobj=unpacked.stdout, mode="r|") as archive:
                for member in archive:
                    suffix = Path(member.name).suffix.lower()
                    is_sound = suffix in SUFFIXES or member.name.endswith("/copyright")
                    contents = archive.extractfile(member) if member.isfile() else None
                    if contents is None or not (is_sound or suffix in ARCHIVE_SUFFIXES):
                        continue
                    data = contents.read() if member.size <= MAX_FILE_BYTES else b""  # counted as unreadable
                    if is_sound:
                        yield member.name, data
                    else:
                        yield from _unzip(member.name, data)
        except tarfile.TarError as error:
            raise ValueError(f"{deb.name} must be a package that dpkg-deb can unpack, found: {error}") from error
        finally:
            unpacked.kill()  # it may still hold the padding behind the archive


def _unzip(name: str, data: bytes) -> Iterator[tuple[str, bytes]]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for member in archive.infolist():
                if member.filename.lower().endswith(SUFFIXES):
                    is_small = member.file_size <= MAX_FILE_BYTES
                    yield f"{name}/{member.filename}", archive.read(member) if is_small else b""
    except (zipfile.BadZipFile, RuntimeError):  # or encrypted
        yield name, b""  # counted as unreadable
