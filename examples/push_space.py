"""Publishes a demo of a model as a Space of the Hub.

    python examples/push_space.py me/my-model me/my-demo --dry_run
    python examples/push_space.py me/my-model me/my-demo
    python examples/push_space.py checkpoints/hear-tiny me/my-demo
    python examples/push_space.py me/my-model me/my-page --space_dir runs/web

The demo is the folder `space` beside this script, with the clips of `sounds`; a file model_id.txt that names the model
is uploaded with it. It also names the model's present commit, which the Space serves until it is published again. A
model that is a folder here becomes part of the Space. A page that web/build_page.py built is published as it is, as a
static Space, which links the model.
"""

from dataclasses import dataclass
from pathlib import Path

from hear_hf.arguments import command_parser, option
from hear_hf.sharing.checks import CheckArguments
from hear_hf.sharing.spaces import is_page, pin_model, stage_space
from hear_hf.sharing.upload import (
    Destination,
    UploadArguments,
    announce,
    destination,
    publish,
    show,
    staging_folder,
)


@dataclass
class DemoArguments:
    """Which demo to publish."""

    space_dir: Path = option(default=Path(__file__).with_name("space"), help="Publish the demo in this folder.")


def main(argv: list[str] | None = None) -> None:
    parser = command_parser((UploadArguments, DemoArguments, CheckArguments), __doc__)
    parser.add_argument("model", metavar="MODEL", help="The model's repository, as OWNER/NAME, or its folder.")
    parser.add_argument("repository", metavar="REPOSITORY", help="Where to publish the demo, as OWNER/NAME.")
    upload_args, demo_args, check_args, args = parser.parse_args_into_dataclasses(argv)

    with staging_folder() as temporary:
        target, staged = destination(args.repository, "space", upload_args), temporary / "space"
        if is_static := is_page(demo_args.space_dir):
            target.space_sdk = "static"
        model = Path(args.model) if Path(args.model).is_dir() else Destination(args.model, token=target.token)
        name = model if isinstance(model, Path) else model.name
        stage_space(demo_args.space_dir, staged, name, check_args.trust_remote_code)
        show(staged)
        if upload_args.dry_run:
            return

        if isinstance(model, Destination) and not is_static:
            if pin_model(staged, model).private and not target.private:
                print(f"{model.name} is private: give the Space a secret HF_TOKEN that may read it.")
        announce(publish(staged, target, lambda path: False), target)


if __name__ == "__main__":
    main()
