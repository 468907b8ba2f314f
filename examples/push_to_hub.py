"""Publishes a model's folder on the Hub, after checking that it is complete and loads where `hear_hf` is absent.

    python examples/push_to_hub.py runs/mine me/my-model --dry_run
    python examples/push_to_hub.py runs/mine me/my-model --private
    python examples/push_to_hub.py runs/mine me/my-model --onnx --endpoint

A README.md in the folder is kept as the model card; what the options state is added to it. --onnx publishes the graphs
that `export_onnx.py runs/mine runs/mine` wrote into the folder too, if they give the model's logits; --endpoint adds
what serves the model on Inference Endpoints.
"""

from dataclasses import dataclass
from pathlib import Path

from hear_hf.arguments import command_parser, option
from hear_hf.sharing.checks import CheckArguments
from hear_hf.sharing.models import CardArguments
from hear_hf.sharing.publication import publish_model
from hear_hf.sharing.upload import UploadArguments, destination, staging_folder


@dataclass
class AdditionArguments:
    """What to publish beside the weights."""

    onnx: bool = option(
        default=False, help='Publish the graphs in its onnx/ too. Needs `pip install "hear_hf[onnx]"`.'
    )
    endpoint: bool = option(default=False, help="Publish a handler for Hugging Face's Inference Endpoints too.")


def main(argv: list[str] | None = None) -> None:
    parser = command_parser((UploadArguments, CardArguments, CheckArguments, AdditionArguments), __doc__)
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="The model's folder.")
    parser.add_argument("repository", metavar="REPOSITORY", help="Where to publish it, as OWNER/NAME.")
    upload_args, card_args, check_args, additions, args = parser.parse_args_into_dataclasses(argv)
    check_onnx = None
    if additions.onnx:
        from hear_hf.deployment.onnx_export import check_exported as check_onnx

    with staging_folder() as temporary:
        target = destination(args.repository, "model", upload_args)
        publish_model(
            args.folder,
            target,
            card_args,
            temporary,
            trust_remote_code=check_args.trust_remote_code,
            dry_run=upload_args.dry_run,
            check_onnx=check_onnx,
            endpoint=additions.endpoint,
        )


if __name__ == "__main__":
    main()
