"""Uploads a folder to the Hub in one commit. What goes wrong is said plainly, and leaves the repository as it was."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

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

REASONS = {
    401: "The Hub does not accept the token. Make one with the right to write at {settings}, and `hf auth login`.",
    402: "The storage of {name} is used up. Free some, or publish elsewhere.",
    403: "The Hub does not let this token write to {name}. The part before the slash must be your name or an "
    "organisation of yours, and the token must have the right to write: see {settings}. To the repository of somebody "
    "else, propose a change by --create_pr.",
    404: "There is no {kind} {name}, or this token may not see it. Check its name.",
    412: "Somebody else has changed {name} since the upload began, so it was not made. Give the command again.",
    413: "The Hub finds the upload too large, or the storage of {name} used up. Leave files out, or free some.",
    429: "The Hub is asked too often. Wait some minutes and give the command again.",
    507: "The storage of {name} is used up. Free some, or publish elsewhere.",
}


class SharingError(Exception):
    """What must hold, what was found, what to do, and what became of the repository: for the terminal."""


@dataclass
class Destination:
    """Where files go on the Hub, and how."""

    name: str
    kind: str = "model"
    private: bool = False
    revision: str | None = None
    create_pr: bool = False
    tags: list[str] = field(default_factory=list)
    message: str | None = None
    token: str | None = None

    def __post_init__(self):
        try:
            validate_repo_id(self.name)
        except HFValidationError as error:
            raise SharingError(f"The repository's name is none that the Hub takes. {error}") from error
        if "/" not in self.name:
            raise SharingError(f"The repository must be named as OWNER/NAME, found: {self.name}")
        if self.create_pr and (self.revision or self.tags):
            raise SharingError("A pull request is made against main: give --create_pr without --revision and --tag.")

    @property
    def url(self) -> str:
        prefix = "" if self.kind == "model" else f"{self.kind}s/"
        return f"{constants.ENDPOINT}/{prefix}{self.name}"

    def api(self) -> HfApi:
        return HfApi(endpoint=constants.ENDPOINT, token=self.token)


def add_destination_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that all uploads share; each also works with hyphens."""
    add = parser.add_argument
    add(
        "--dry_run", "--dry-run", action="store_true", help="Check, show what would go up, and stop. Needs no network."
    )
    add("--private", action="store_true", help="Make a new repository private.")
    add("--revision", help="The branch to upload to, which must exist (default: main).")
    add("--create_pr", "--create-pr", action="store_true", help="Open a pull request instead of changing main.")
    add("--tag", nargs="+", default=[], help="Tags for the commit, for example v1.0.")
    add("--commit_message", "--commit-message", help="What the history says.")
    add("--token", help="A token with the right to write; by default HF_TOKEN or that of `hf auth login`.")


def destination(args: argparse.Namespace, kind: str) -> Destination:
    options = {"private": args.private, "revision": args.revision, "create_pr": args.create_pr, "tags": args.tag}
    return Destination(args.repo_id, kind, message=args.commit_message, token=args.token or get_token(), **options)


def show(folder: Path, left_out: dict[str, str]) -> None:
    """What goes up and how large, and what stays here and why."""
    sizes = {
        path.relative_to(folder).as_posix(): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    width = max(map(len, [*sizes, *left_out]))
    print("Goes up:")
    for name, size in sizes.items():
        print(f"  {name:{width}}  {readable(size):>9}")
    print(f"  {f'{len(sizes)} files':{width}}  {readable(sum(sizes.values())):>9}")
    if left_out:
        print("Stays here:")
        for name, reason in left_out.items():
            print(f"  {name:{width}}  {reason}")


def readable(size: float) -> str:
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"


def announce(commit: CommitInfo, target: Destination) -> None:
    print(f"Published: {commit.pr_url or target.url} (commit {commit.oid})")


def publish(folder: Path, target: Destination, is_ours: Callable[[str], bool]) -> CommitInfo:
    """
    Uploads a folder's files in one commit, into a new repository where there is none.

    Args:
        folder (`Path`): Its files go up under their paths in it.
        target (`Destination`): Where to.
        is_ours (`Callable[[str], bool]`): Whether a file of the repository is to go where `folder` does not have it.

    Raises:
        `SharingError`: The upload was refused or interrupted.
    """
    if is_offline_mode():
        raise SharingError("Uploading needs the network, found HF_HUB_OFFLINE=1: unset it.")
    if target.token is None:
        raise SharingError(f"Uploading needs a token, found none. {_fill(REASONS[401], target).partition('. ')[2]}")
    upload = _Upload(target)
    try:
        upload.open()
        return upload.commit(folder, is_ours)
    except (Exception, KeyboardInterrupt) as error:
        raise SharingError(f"{explain(error, target)} {upload.undo(error)}") from error


class _Upload:
    """One upload, and what there was before it."""

    def __init__(self, target: Destination):
        self.target, self.api = target, target.api()
        self.repository = {"repo_id": target.name, "repo_type": target.kind}
        self.is_creating, self.is_new, self.head, self.done = False, False, None, None

    def open(self) -> None:
        """Finds the repository or makes it, and checks that what is asked for can be done."""
        target = self.target
        self.api.whoami()
        try:
            info = self.api.repo_info(**self.repository, revision=target.revision)
        except RepositoryNotFoundError as error:
            if isinstance(error, GatedRepoError):
                raise
            if target.create_pr or target.revision:
                raise SharingError(
                    f"There must be a {target.kind} {target.name} for --create_pr and --revision, found none: upload "
                    "to main first."
                ) from error
            sdk = {"space_sdk": "gradio"} if target.kind == "space" else {}
            self.is_creating = True
            try:
                self.api.create_repo(**self.repository, private=target.private, **sdk)
                self.is_new = True
            except HfHubHTTPError:
                self.is_creating = False
                raise
            info = self.api.repo_info(**self.repository)
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
            print("Removes from the repository, as left over from earlier uploads: " + ", ".join(stale))
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
        """Deletes the repository if this upload made it, and says what became of it."""
        name, url = self.target.name, self.target.url
        was_refused = any(isinstance(one, HfHubHTTPError) and one.response.status_code < 500 for one in causes(error))
        try:
            if self.is_new:
                self.api.delete_repo(**self.repository, missing_ok=True)
                return f"The new repository {name} was deleted again: nothing is left on the Hub."
            if self.is_creating:  # and no answer came
                return f"If {url} exists now, it is new and empty."
            if self.done:
                return f"The files are there, as commit {self.done}; what should have followed is not."
            if was_refused or self.head is None or self._head() == self.head:
                return "This changed nothing on the Hub."
            return f"{name} has got a new commit meanwhile, {self._head()}: look at {url} whether it is this."
        except Exception:
            if self.is_new:
                return f"The new repository {name} could not be deleted again: do so at {url}/settings"
            return f"Files appear all together or not at all; look at {url} for which."

    def _head(self) -> str:
        return self.api.repo_info(**self.repository, revision=self.target.revision).sha


def explain(error: BaseException, target: Destination) -> str:
    """What happened and what to do, in a sentence or two."""
    chain = causes(error)
    for error in chain:
        if isinstance(error, SharingError):
            return str(error)
        if isinstance(error, KeyboardInterrupt):
            return "Interrupted."
        if isinstance(error, GatedRepoError):
            return _fill("Access to {name} is restricted: ask for it at {url}, or publish elsewhere.", target)
        if isinstance(error, RevisionNotFoundError):
            return _fill("There is no branch {revision} in {name}: make it on the Hub first, or leave it out.", target)
        if isinstance(error, OfflineModeIsEnabled):
            return "This needs the network, found HF_HUB_OFFLINE=1: unset it."
        if isinstance(error, HfHubHTTPError):
            return _explain_answer(error, target)
    if any(isinstance(error, HTTPError | ConnectionError | TimeoutError) for error in chain):
        return (
            f"The connection to {constants.ENDPOINT} failed or broke ({_one_line(chain[-1])}). Check the network and "
            "give the command again; large files that have arrived are not sent twice."
        )
    return f"The upload failed: {_one_line(chain[0])}."


def causes(error: BaseException) -> list[BaseException]:
    """An error, what it was raised from, and so on."""
    chain = [error]
    while chain[-1].__cause__ or chain[-1].__context__:
        chain.append(chain[-1].__cause__ or chain[-1].__context__)
    return chain


def _explain_answer(error: HfHubHTTPError, target: Destination) -> str:
    status = error.response.status_code
    if status == 403 and any(word in str(error).lower() for word in ("storage", "quota")):
        status = 507
    if status in REASONS:
        return _fill(REASONS[status], target)
    if status >= 500:
        return f"The Hub has trouble of its own (it answers {status}). Try again later."
    return f"The Hub refused with {status}: {_one_line(error)}."


def _fill(reason: str, target: Destination) -> str:
    settings = f"{constants.ENDPOINT}/settings/tokens"
    return reason.format(
        name=target.name, kind=target.kind, url=target.url, revision=target.revision, settings=settings
    )


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300].rstrip(".") or type(error).__name__
