"""Uploads a folder to the Hub in one commit. An upload that fails says why, and leaves the repository as it was."""

import errno
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from huggingface_hub import (
    CommitInfo,
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    constants,
    get_token,
    is_offline_mode,
)
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import validate_repo_id

from ..arguments import option, printable
from .temporary import temporary_folder

Kind = Literal["model", "dataset", "space"]
REASONS = {
    401: "The Hub does not accept the token. Create one with write access at {settings}, then run `hf auth login`.",
    402: "The storage of {name} is full. Free some, or publish elsewhere.",
    403: "The Hub does not let this token write to {name}. The part before the slash must be your name or an "
    "organisation of yours, and the token must have write access: see {settings}. To change a repository of somebody "
    "else, open a pull request with --create_pr.",
    404: "There is no {kind} {name}, or this token may not see it. Check its name.",
    412: "Somebody else has changed {name} since the upload began, so it was cancelled. Run the command again.",
    413: "The Hub finds the upload too large, or the storage of {name} full. Leave files out, or free some storage.",
    429: "The Hub has had too many requests. Wait some minutes and run the command again.",
    507: "The storage of {name} is full. Free some, or publish elsewhere.",
}


class SharingError(Exception):
    """What must hold, what was found, what to do, and what became of the repository: for the terminal."""


@dataclass
class UploadArguments:
    """How to upload: what all commands that publish share."""

    dry_run: bool = option(default=False, help="Check, show what would be uploaded, and stop. Needs no network.")
    private: bool = option(default=False, help="Make a new repository private.")
    revision: str | None = option(default=None, help="Upload to this branch, which must exist, in place of main.")
    create_pr: bool = option(default=False, help="Open a pull request in place of changing main.")
    tag: list[str] | None = option(default=None, help="Tag the commit with these names, for example v1.0.")
    commit_message: str | None = option(default=None, help="Describe the commit in the history of the repository.")


@dataclass
class Destination:
    """
    Where on the Hub to publish, and how.

    Args:
        name (`str`): The repository, as `OWNER/NAME`.
        kind (`str`, *optional*, defaults to `"model"`): `"model"`, `"dataset"` or `"space"`.
        private (`bool`, *optional*, defaults to `False`): Whether a new repository is private.
        revision (`str`, *optional*): The branch; main by default.
        create_pr (`bool`, *optional*, defaults to `False`): Whether to open a pull request in place of a commit.
        tags (`list[str]`, *optional*): Names for the commit.
        message (`str`, *optional*): Describes the commit.
        token (`str`, *optional*): A token with write access.
        space_sdk (`str`, *optional*, defaults to `"gradio"`): What runs a new Space.

    Raises:
        `SharingError`: The name is none that the Hub takes, or the options exclude one another.
    """

    name: str
    kind: Kind = "model"
    private: bool = False
    revision: str | None = None
    create_pr: bool = False
    tags: list[str] = field(default_factory=list)
    message: str | None = None
    token: str | None = None
    space_sdk: str = "gradio"

    def __post_init__(self):
        try:
            validate_repo_id(self.name)
        except HFValidationError as error:
            raise SharingError(f"The name of the repository must be one that the Hub takes: {error}") from error
        if "/" not in self.name:
            raise SharingError(f"The repository must be named as OWNER/NAME, found: {self.name}")
        if self.create_pr and (self.revision or self.tags):
            raise SharingError("A pull request must be against main: give --create_pr without --revision and --tag.")

    @property
    def url(self) -> str:
        prefix = "" if self.kind == "model" else f"{self.kind}s/"
        return f"{constants.ENDPOINT}/{prefix}{self.name}"

    def api(self) -> HfApi:
        return HfApi(endpoint=constants.ENDPOINT, token=self.token)


def destination(repository: str, kind: Kind, args: UploadArguments) -> Destination:
    """Where the options of a command lead; raises what `Destination` does."""
    return Destination(
        repository,
        kind,
        private=args.private,
        revision=args.revision,
        create_pr=args.create_pr,
        tags=args.tag or [],
        message=args.commit_message,
        token=login(),
    )


def is_repository(name: str) -> bool:
    """Whether the Hub may have a repository of this name."""
    try:
        return bool(Destination(name))
    except SharingError:
        return False


def login() -> str | None:
    """The token of `HF_TOKEN` or of `hf auth login`. Of a command line, every user of the machine could read it."""
    return get_token()


def full_name(repository: str) -> str:
    """
    A model's name with its owner, by default who is logged in.

    Raises:
        `SharingError`: The Hub cannot be reached, or does not accept the login.
    """
    target = Destination(repository if "/" in repository else f"me/{repository}", token=login())
    check_access(target)
    try:
        user = target.api().whoami()["name"]
    except Exception as error:
        raise SharingError(explain(error, target)) from error
    return repository if "/" in repository else f"{user}/{repository}"


@contextmanager
def staging_folder() -> Iterator[Path]:
    """
    A temporary folder for what a command publishes.

    A `SharingError` ends the command with its message alone, and a request to terminate as Ctrl+C does: the upload is
    undone, and the folder and processes are gone.
    """
    try:
        with _termination_as_interrupt(), temporary_folder() as temporary:
            yield temporary
    except SharingError as error:
        raise SystemExit(printable(str(error))) from error
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        raise SystemExit(f"Names must be shorter, found: {str(error.filename)[:100]!r}...") from error
    except KeyboardInterrupt as error:
        raise SystemExit("Interrupted.") from error


@contextmanager
def _termination_as_interrupt() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # which alone may handle signals
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def show(folder: Path, kept_back: dict[str, str] | None = None) -> None:
    """Prints the files of a folder with their sizes, and what is kept back with the reasons."""
    paths = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    sizes = {name: path.stat().st_size for name, path in paths.items()}
    kept_back = kept_back or {}
    width = max(map(len, [*sizes, *kept_back]))
    print("To upload:")
    for name, size in sizes.items():
        print(f"  {name:{width}}  {readable(size):>9}")
    print(f"  {f'{len(sizes)} files':{width}}  {readable(sum(sizes.values())):>9}")
    if kept_back:
        print("Kept back:")
        for name, reason in kept_back.items():
            print(f"  {name:{width}}  {reason}")


def readable(size: float) -> str:
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"


def announce(commit: CommitInfo, target: Destination) -> None:
    print(f"Published: {commit.pr_url or target.url} (commit {commit.oid})")


@contextmanager
def verification(commit: CommitInfo, target: Destination) -> Iterator[None]:
    """Around what checks an upload: an error says that the upload itself is done."""
    print("Downloading it again, to compare ...")
    try:
        yield
    except Exception as error:
        raise SharingError(
            f"The files are on the Hub as commit {commit.oid}, but: {explain(error, target)}"
        ) from error


def publish(folder: Path, target: Destination, is_ours: Callable[[str], bool]) -> CommitInfo:
    """
    Uploads a folder in one commit, into a new repository where there is none.

    Args:
        folder (`Path`): Its files are uploaded under their paths in it.
        target (`Destination`): Where to.
        is_ours (`Callable[[str], bool]`): Whether to delete a file of the repository that `folder` does not have.

    Raises:
        `SharingError`: The upload was refused or interrupted.
    """
    check_access(target)
    upload = _Upload(target)
    try:
        upload.open()
        return upload.commit(folder, is_ours)
    except (Exception, KeyboardInterrupt) as error:
        raise SharingError(f"{explain(error, target)} {upload.undo(error)}") from error


def check_access(target: Destination) -> None:
    """Raises `SharingError` where there can be no upload: offline, or without a token."""
    if is_offline_mode():
        raise SharingError("Uploading needs the network, found HF_HUB_OFFLINE=1: unset it.")
    if target.token is None:
        raise SharingError(f"Uploading needs a token, found none. {_fill(REASONS[401], target).partition('. ')[2]}")


class _Upload:
    """One upload, and what there was before it."""

    def __init__(self, target: Destination):
        self.target, self.api = target, target.api()
        self.repository: dict[str, Any] = {"repo_id": target.name, "repo_type": target.kind}
        self.is_creating = self.is_new = False
        self.files: set[str] = set()
        self.head: str | None = None
        self.done: str | None = None

    def open(self) -> None:
        """Finds the repository or creates it, and checks that what is asked for can be done."""
        target = self.target
        self.api.whoami()
        info: Any = self._find() or self._create()
        self.head, self.files = info.sha, {file.rfilename for file in info.siblings}
        if target.private and not info.private:
            raise SharingError(f"{target.name} exists and is public; make it private at {target.url}/settings first.")
        taken = {tag.name for tag in self.api.list_repo_refs(**self.repository).tags} & set(target.tags)
        if taken:
            raise SharingError(f"New tags must not exist, found: {sorted(taken)}. Choose others or delete them.")

    def commit(self, folder: Path, is_ours: Callable[[str], bool]) -> CommitInfo:
        target = self.target
        paths = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
        stale = sorted(path for path in self.files - set(paths) if is_ours(path))
        if stale:
            print("Deletes from the repository, left over from earlier uploads: " + ", ".join(stale))
        additions = [CommitOperationAdd(name, str(path)) for name, path in paths.items()]
        info = self.api.create_commit(
            **self.repository,
            operations=additions + [CommitOperationDelete(path) for path in stale],
            commit_message=target.message or f"Upload {target.kind}",
            revision=target.revision,
            create_pr=target.create_pr,
            parent_commit=self.head,
        )
        self.done = info.oid
        for tag in target.tags:
            self.api.create_tag(**self.repository, tag=tag, revision=info.oid)
        return info

    def undo(self, error: BaseException) -> str:
        """Deletes the repository if this upload made all that is in it, and says what became of it."""
        name, url = self.target.name, self.target.url
        was_refused = any(isinstance(one, HfHubHTTPError) and one.response.status_code < 500 for one in causes(error))
        try:
            if self.is_new and self._is_ours():
                self.api.delete_repo(**self.repository, missing_ok=True)
                return f"The new repository {name} was deleted again: nothing is left on the Hub."
            if self.is_new:
                return f"The new repository {name} stays, as it holds commits that may be of others: look at {url}"
            if self.is_creating:  # and no answer came
                return f"If {url} exists now, it is new and empty."
            if self.done:
                return f"The files are on the Hub, as commit {self.done}; only what follows the upload failed."
            if was_refused or self.head is None or self._head() == self.head:
                return "This changed nothing on the Hub."
            return f"{name} has a new commit, {self._head()}: look at {url} to see whether it is this upload."
        except (Exception, KeyboardInterrupt):  # Ctrl+C, pressed twice
            if self.is_new:
                return f"The new repository {name} could not be deleted again: delete it at {url}/settings"
            return f"Files appear all together or not at all: look at {url} to see which."

    def _is_ours(self) -> bool:
        """Whether a new repository holds nothing but its first commit, which the Hub makes, and this upload."""
        refs = self.api.list_repo_refs(**self.repository, include_pull_requests=True)
        others = {ref.name for ref in [*refs.branches, *refs.tags, *(refs.pull_requests or [])]}
        commits = [commit.commit_id for commit in self.api.list_repo_commits(**self.repository)]
        return others <= {"main", *self.target.tags} and set(commits[:-1]) <= {self.done}

    def _find(self) -> Any:
        """What the Hub says of the repository; `None` if there is none and it may be created."""
        target = self.target
        try:
            return self.api.repo_info(**self.repository, revision=target.revision)
        except RepositoryNotFoundError as error:
            if isinstance(error, GatedRepoError):
                raise
            if target.create_pr or target.revision:
                raise SharingError(
                    f"There must be a {target.kind} {target.name} for --create_pr and --revision, found none: upload "
                    "to main first."
                ) from error
            return None

    def _create(self) -> Any:
        sdk = self.target.space_sdk if self.target.kind == "space" else None
        self.is_creating = True
        try:
            self.api.create_repo(**self.repository, private=self.target.private, space_sdk=sdk)
            self.is_new = True
        except HfHubHTTPError:
            self.is_creating = False
            raise
        return self.api.repo_info(**self.repository)

    def _head(self) -> str | None:
        return self.api.repo_info(**self.repository, revision=self.target.revision).sha


def explain(error: BaseException, target: Destination) -> str:
    """Says what happened and what to do, in a sentence or two."""
    chain = causes(error)
    for error in chain:
        if isinstance(error, SharingError):
            return str(error)
        if isinstance(error, KeyboardInterrupt):
            return "Interrupted."
        if isinstance(error, GatedRepoError):
            return _fill("Access to {name} is restricted: request it at {url}, or publish elsewhere.", target)
        if isinstance(error, RevisionNotFoundError):
            return _fill("There is no branch {revision} in {name}: create it first, or leave out --revision.", target)
        if isinstance(error, OfflineModeIsEnabled):
            return "This needs the network, found HF_HUB_OFFLINE=1: unset it."
        if isinstance(error, HfHubHTTPError):
            return _explain_answer(error, target)
    if any(isinstance(error, HTTPError | ConnectionError | TimeoutError) for error in chain):
        return (
            f"The connection to {constants.ENDPOINT} failed ({_one_line(chain[-1])}). Check the network and run the "
            "command again: large files that have arrived are not sent twice."
        )
    return f"It failed with an unexpected error: {_one_line(chain[0])}."


def causes(error: BaseException) -> list[BaseException]:
    """The error, what it was raised from, and so on."""
    chain = [error]
    while cause := chain[-1].__cause__ or chain[-1].__context__:
        chain.append(cause)
    return chain


def _explain_answer(error: HfHubHTTPError, target: Destination) -> str:
    status = error.response.status_code
    if status == 403 and any(word in str(error).lower() for word in ("storage", "quota")):
        status = 507
    if status in REASONS:
        return _fill(REASONS[status], target)
    if status >= 500:
        return f"The Hub failed with an error of its own ({status}). Try again later."
    return f"The Hub refused this with {status}: {_one_line(error)}."


def _fill(reason: str, target: Destination) -> str:
    settings = f"{constants.ENDPOINT}/settings/tokens"
    return reason.format(
        name=target.name, kind=target.kind, url=target.url, revision=target.revision, settings=settings
    )


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300].rstrip(".") or type(error).__name__
