"""Links and pipes in what is published: no link may lead out of its folder, for what it points to would go up too."""

from pathlib import Path

from .upload import SharingError


def check_link(path: Path, root: Path) -> None:
    """
    Checks that a path in a folder leads to a visible file or folder in it.

    The Hub's cache, whose snapshots are links to its own `blobs/`, is the exception.

    Args:
        path (`Path`): A file or folder in `root`.
        root (`Path`): The folder that is published; it may be a link itself.

    Raises:
        `SharingError`: The path leads elsewhere, or to a named pipe or the like, whose reader may wait for ever.
    """
    home, found = root.resolve(), path.resolve()
    blobs = home.parents[1] / "blobs" if home.parent.name == "snapshots" else home
    above = next((folder for folder in (home, blobs) if found.is_relative_to(folder)), None)
    reveals_hidden = above is not None and _is_hidden(found, above) and not _is_hidden(path, root)
    if above is None or reveals_hidden or not found.exists():
        raise SharingError(
            f"Links must lead to visible files of their own folder, found: {path} -> {found}. Put a copy in place of "
            "the link if it may be published, else remove it."
        )
    if not (found.is_file() or found.is_dir()):
        raise SharingError(f"What is published must be files and folders, found: {path}. Remove it.")


def check_links(folder: Path, root: Path) -> None:
    """Checks what is visible in and below a folder of `root`; a folder may be no link, which could lead in circles."""
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        check_link(path, root)
        if path.is_dir():
            if path.is_symlink():
                raise SharingError(f"Folders must be no links, found: {path}. Put a copy in place of the link.")
            check_links(path, root)


def _is_hidden(path: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(root).parts)
