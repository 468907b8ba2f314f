"""Publishes a model's folder on the Hub, after checking that it is complete and loads where `hear_hf` is absent.

    python examples/push_to_hub.py runs/mine me/my-model --dry_run
    python examples/push_to_hub.py runs/mine me/my-model --private
    python examples/push_to_hub.py runs/mine me/my-model --onnx

A README.md in the folder is kept as the model card; what the options state is added to it. --onnx publishes the graphs
that `export_onnx.py runs/mine runs/mine` wrote into the folder too, if they give the model's logits.
"""

from dataclasses import dataclass
from pathlib import Path

from hear_hf.arguments import command_parser, option
from hear_hf.sharing.checks import CheckArguments
from hear_hf.sharing.models import CardArguments
from hear_hf.sharing.publication import publish_model
from hear_hf.sharing.upload import UploadArguments, destination, staging_folder


@dataclass
class OnnxArguments:
    """What to publish beside the weights."""

    onnx: bool = option(
        default=False, help='Publish the graphs in its onnx/ too. Needs `pip install "hear_hf[onnx]"`.'
    )


def main(argv: list[str] | None = None) -> None:
    parser = command_parser((UploadArguments, CardArguments, CheckArguments, OnnxArguments), __doc__)
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="The model's folder.")
    parser.add_argument("repository", metavar="REPOSITORY", help="Where to publish it, as OWNER/NAME.")
    upload_args, card_args, check_args, onnx_args, args = parser.parse_args_into_dataclasses(argv)
    check_onnx = None
    if onnx_args.onnx:
        from hear_hf.deployment.onnx_export import check_exported as check_onnx

    with staging_folder() as temporary:
        target = destination(args.repository, "model", upload_args)
        trusted, dry_run = check_args.trust_remote_code, upload_args.dry_run
        publish_model(args.folder, target, card_args, temporary, trusted, dry_run, check_onnx)


if __name__ == "__main__":
    main()
