"""Publishes a demo of a published model as a Space of the Hub.

python examples/push_space.py me/my-model me/my-demo --dry_run
python examples/push_space.py me/my-model me/my-demo
"""

import argparse
import tempfile
from pathlib import Path

from hear_hf.sharing.spaces import is_private, stage_space
from hear_hf.sharing.upload import (
    Destination,
    SharingError,
    add_destination_arguments,
    announce,
    destination,
    publish,
    show,
)


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", metavar="MODEL", help="The model's repository, as OWNER/NAME.")
    parser.add_argument("repo_id", metavar="REPOSITORY", help="Where to, as OWNER/NAME.")
    parser.add_argument(
        "--space_dir", type=Path, default=Path(__file__).parent / "space", help="The folder of the demo."
    )
    add_destination_arguments(parser)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    try:
        with tempfile.TemporaryDirectory() as temporary:
            share_space(args, Path(temporary) / "staged")
    except SharingError as error:
        raise SystemExit(str(error)) from error


def share_space(args: argparse.Namespace, staged: Path) -> None:
    target = destination(args, "space")
    model = Destination(args.model, token=target.token)
    stage_space(args.space_dir, staged, model.name)
    show(staged, {})
    if args.dry_run:
        return
    if is_private(model) and not args.private:
        print(f"{model.name} is private: give the Space a secret HF_TOKEN that may read it.")
    announce(publish(staged, target, lambda path: False), target)


if __name__ == "__main__":
    main()
