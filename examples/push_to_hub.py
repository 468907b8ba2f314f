"""Publishes a model's folder on the Hub, after checking that it is whole and loads where `hear_hf` is absent.

python examples/push_to_hub.py runs/mine me/my-model --dry_run
python examples/push_to_hub.py runs/mine me/my-model --private
"""

import argparse
import tempfile
from pathlib import Path

from hear_hf.sharing.checks import check_card, check_models, compare, is_stale, stage
from hear_hf.sharing.models import complete_card
from hear_hf.sharing.upload import SharingError, add_destination_arguments, announce, destination, publish, show


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", metavar="FOLDER", help="The model's folder.")
    parser.add_argument("repo_id", metavar="REPOSITORY", help="Where to, as OWNER/NAME.")
    add_destination_arguments(parser)
    card = parser.add_argument_group("the model card", "What is not given stays as README.md has it.")
    card.add_argument("--license", help="As the Hub names licences (a new card: mit).")
    card.add_argument("--datasets", nargs="+", help="The training data, by their names on the Hub.")
    card.add_argument("--base_model", "--base-model", help="What the model started from, by its name on the Hub.")
    card.add_argument("--examples", nargs="+", default=[], help="Clips to show with what the model hears in them.")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    try:
        with tempfile.TemporaryDirectory() as temporary:
            share_model(args, Path(temporary) / "staged")
    except SharingError as error:
        raise SystemExit(str(error)) from error


def share_model(args: argparse.Namespace, staged: Path) -> None:
    target = destination(args, "model")
    left_out = stage(Path(args.source), staged)
    checked = check_models(staged)
    card = complete_card(staged, checked[0], args, name=Path(args.source).resolve().name)
    check_card(card, staged)
    card.save(staged / "README.md")
    print("The folder is whole: it loads, runs a clip, and gives the same outputs where hear_hf is absent.")
    show(staged, left_out)
    if args.dry_run:
        return

    commit = publish(staged, target, is_stale)
    announce(commit, target)
    print("Downloading it again, to compare ...")
    try:
        compare(checked, target.name, commit.oid, target.token)
    except SharingError as error:
        raise SharingError(f"The files are on the Hub as commit {commit.oid}, but: {error}") from error
    print("The downloaded model gives the same outputs.")


if __name__ == "__main__":
    main()
