"""Publishes labelled clips on the Hub as a data set that `load_dataset` gives with `Audio` and `ClassLabel`.

    python examples/push_dataset.py my_sounds me/my-sounds --dry_run
    python examples/push_dataset.py train.csv test.csv me/my-sounds --private --license cc-by-4.0

A folder has a sub-folder a class, or train/, validation/ and test/ above those. Tables (CSV, TSV, JSON, parquet) name
the clips and their labels, and are the split that their file's name begins with, else train. A README.md in the folder
is kept as the card.
"""

import argparse
import tempfile
from pathlib import Path

from hear_hf.sharing.datasets import compare, dataset_card, load, published_features, write_splits
from hear_hf.sharing.upload import (
    SharingError,
    add_destination_arguments,
    announce,
    destination,
    explain,
    publish,
    show,
)


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="+", metavar="FOLDER_OR_TABLES", help="A folder, or one or several tables.")
    parser.add_argument("repo_id", metavar="REPOSITORY", help="Where to, as OWNER/NAME.")
    add_destination_arguments(parser)
    add = parser.add_argument
    add("--audio_column_name", "--audio-column-name", default="audio", help="The tables' column of clips.")
    add("--label_column_name", "--label-column-name", default="label", help="Their column of labels.")
    add("--multi_label", "--multi-label", action="store_true", help="A clip has any number of labels.")
    add("--skip_broken", "--skip-broken", action="store_true", help="Leave out clips that cannot be decoded.")
    add("--license", help="As the Hub names licences; without one nobody else may use the clips.")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    try:
        with tempfile.TemporaryDirectory() as temporary:
            share(args, Path(temporary))
    except SharingError as error:
        raise SystemExit(str(error)) from error


def share(args: argparse.Namespace, temporary: Path) -> None:
    target, staged = destination(args, "dataset"), temporary / "staged"
    datasets = load(args)
    splits = write_splits(datasets, staged / "data", args.skip_broken)
    features = published_features(next(iter(datasets.values())))
    card = dataset_card(splits, features, staged / "data", args)
    card.save(staged / "README.md")
    show(staged, {})
    if not card.data.license:
        print("No licence is stated, so nobody else may use the clips: give one by --license.")
    if args.dry_run:
        return
    commit = publish(staged, target, lambda path: path.startswith("data/") and path.endswith(".parquet"))
    announce(commit, target)
    print("Downloading it again, to compare ...")
    try:
        source = {"repo_id": target.name, "repo_type": "dataset", "revision": commit.oid}
        target.api().snapshot_download(**source, local_dir=temporary / "downloaded")
        compare(splits, features, temporary)
    except Exception as error:
        raise SharingError(
            f"The files are on the Hub as commit {commit.oid}, but: {explain(error, target)}"
        ) from error
    print("The downloaded clips and labels are the same.")


if __name__ == "__main__":
    main()
