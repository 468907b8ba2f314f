"""The way of a model's folder to the Hub: staged, checked, uploaded, downloaded again and compared."""

from collections.abc import Callable
from pathlib import Path

from huggingface_hub import CommitInfo

from .checks import check_card, check_models, compare, is_stale, stage
from .endpoints import add_endpoint
from .models import CardArguments, complete_card
from .upload import Destination, SharingError, announce, publish, show, verification


def publish_model(
    folder: Path,
    target: Destination,
    args: CardArguments,
    temporary: Path,
    trust_remote_code: bool = False,
    dry_run: bool = False,
    check_onnx: Callable[[Path], None] | None = None,
    endpoint: bool = False,
) -> CommitInfo | None:
    """
    Publishes a model, and prints what is uploaded, what is kept back and what came of it.

    Args:
        folder (`Path`): The model's folder, as `save_pretrained` wrote it.
        target (`Destination`): Where to.
        args (`CardArguments`): What to state on its card.
        temporary (`Path`): A folder for what is uploaded.
        trust_remote_code (`bool`, *optional*, defaults to `False`): Whether to run code of the folder that is not the
            installed package's.
        dry_run (`bool`, *optional*, defaults to `False`): Whether to stop before the upload.
        check_onnx (`Callable`, *optional*): Raises a `ValueError` where the graphs in a folder's `onnx` are not its
            model's. With it they are published too.
        endpoint (`bool`, *optional*, defaults to `False`): Whether to add a handler for Inference Endpoints.

    Returns:
        `CommitInfo`: The commit; `None` of a dry run.

    Raises:
        `SharingError`: A check failed, or the upload was refused or interrupted.
    """
    staged = temporary / "model"
    kept_back = stage(folder, staged, with_onnx=check_onnx is not None)
    checked = check_models(staged, trust_remote_code)
    if check_onnx is not None:
        try:
            check_onnx(staged)
        except ValueError as error:
            raise SharingError(str(error)) from error
    if endpoint:
        checked.append(add_endpoint(staged, checked[0]))
    card = complete_card(staged, checked[0], args, target.name, title=folder.resolve().name)
    check_card(card, staged)
    card.save(staged / "README.md")
    print("The model is complete: it loads, runs a clip, and gives the same outputs where hear_hf is absent.")
    show(staged, kept_back)
    if dry_run:
        return None

    commit = publish(staged, target, is_stale)
    announce(commit, target)
    with verification(commit, target):
        compare(checked, target.name, commit.oid, target.token)
    print("The downloaded model gives the same outputs.")
    return commit
