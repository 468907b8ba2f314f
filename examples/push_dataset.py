"""Publishes labelled clips on the Hub as a data set that `load_dataset` gives with `Audio` and `ClassLabel`.

    python examples/push_dataset.py my_sounds me/my-sounds --dry_run
    python examples/push_dataset.py train.csv test.csv me/my-sounds --private --license cc-by-4.0

A folder has one sub-folder per class, or metadata.csv files that name clips and labels (Hugging Face's audiofolder);
train/, validation/ and test/ may stand above either. Tables (CSV, TSV, JSON, parquet)
name the clips and their labels, and are the split that their file's name begins with, else train. A README.md in the
folder is kept as the card.
"""

from pathlib import Path

from hear_hf.arguments import command_parser
from hear_hf.sharing.datasets import (
    DatasetArguments,
    compare_download,
    dataset_card,
    load_clips,
    source_folders,
    stage_dataset,
)
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
    parser = command_parser((UploadArguments, DatasetArguments), __doc__)
    parser.add_argument("sources", nargs="+", metavar="FOLDER_OR_TABLES", help="A folder, or one or several tables.")
    parser.add_argument("repository", metavar="REPOSITORY", help="Where to publish them, as OWNER/NAME.")
    upload_args, dataset_args, args = parser.parse_args_into_dataclasses(argv)

    with staging_folder() as temporary:
        target, staged = destination(args.repository, "dataset", upload_args), temporary / "dataset"
        clips = load_clips(args.sources, dataset_args)
        folders = source_folders(args.sources)
        data = stage_dataset(clips, staged / "data", dataset_args.skip_broken, folders)
        card = dataset_card(data, dataset_args.license, target.name, own=Path(args.sources[0]) / "README.md")
        card.save(staged / "README.md")
        show(staged)
        if not card.data.license:
            print("No licence is stated, so nobody else may use the clips: state one with --license.")
        if upload_args.dry_run:
            return

        commit = publish(staged, target, lambda path: path.startswith("data/") and path.endswith(".parquet"))
        announce(commit, target)
        with verification(commit, target):
            compare_download(data, target, commit.oid, temporary)
        print("The downloaded clips and labels are the same.")


if __name__ == "__main__":
    main()
