"""Publishes a model's folder on the Hub, after checking that it is complete and loads where `hear_hf` is absent.

    python examples/push_to_hub.py runs/mine me/my-model --dry_run
    python examples/push_to_hub.py runs/mine me/my-model --private

A README.md in the folder is kept as the model card; what the options state is added to it.
"""

from pathlib import Path

from hear_hf.arguments import command_parser
from hear_hf.sharing.checks import check_card, check_models, compare, is_stale, stage
from hear_hf.sharing.models import CardArguments, complete_card
from hear_hf.sharing.upload import (
    UploadArguments,
    announce,
    destination,
    publish,
    show,
    staging_folder,
    verification,
)


def main(argv: list[str] | None = None) -> None:
    parser = command_parser((UploadArguments, CardArguments), __doc__)
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="The model's folder.")
    parser.add_argument("repository", metavar="REPOSITORY", help="Where to publish it, as OWNER/NAME.")
    upload_args, card_args, args = parser.parse_args_into_dataclasses(argv)

    with staging_folder() as temporary:
        target, staged = destination(args.repository, "model", upload_args), temporary / "model"
        kept_back = stage(args.folder, staged)
        checked = check_models(staged)
        card = complete_card(staged, checked[0], card_args, target.name, title=args.folder.resolve().name)
        check_card(card, staged)
        card.save(staged / "README.md")
        print("The model is complete: it loads, runs a clip, and gives the same outputs where hear_hf is absent.")
        show(staged, kept_back)
        if upload_args.dry_run:
            return

        commit = publish(staged, target, is_stale)
        announce(commit, target)
        with verification(commit, target):
            compare(checked, target.name, commit.oid, target.token)
        print("The downloaded model gives the same outputs.")


if __name__ == "__main__":
    main()
