"""Exports a HEAR classifier to ExecuTorch, to run on phones and small boards: waveform -> logits of one clip.

    python examples/export_executorch.py runs/digits runs/digits_pte --seconds 1 --dtype float32 int8

A program reads clips of one length, without padding: `model_1s.pte`, or `model_1s_int8.pte` with linear layers that
multiply 8-bit weights and activations. Beside it a JSON file of its name has the labels, the rate, the number of
samples and the kind of problem.

XNNPACK computes all of it, so a runtime needs that backend alone. Each program is compared with PyTorch before it is
put in place. Needs `pip install "hear_hf[executorch]"`.
"""

import sys
from pathlib import Path

from hear_hf.arguments import command_parser
from hear_hf.classifiers import loading
from hear_hf.exports import Classifier, load_classifier
from hear_hf.mobile.executorch_export import MobileArguments, export_program, measure_pytorch
from hear_hf.mobile.executorch_session import program_path


def main(argv: list[str] | None = None) -> None:
    parser = command_parser(MobileArguments, __doc__)
    parser.add_argument("model", help="Export this HEAR classifier: a folder, or a repository of the Hub.")
    parser.add_argument("output_dir", help="Write to this folder, which is made if need be.")
    args, named = parser.parse_args_into_dataclasses(argv)

    with loading(named.model):
        model = load_classifier(named.model)
    try:
        export(model, args, Path(named.output_dir))
    except ValueError as error:  # of the length, or of a type that loses too much
        sys.exit(str(error))


def export(model: Classifier, args: MobileArguments, folder: Path) -> None:
    """Writes the programs, and shows what each takes beside PyTorch."""
    pytorch = measure_pytorch(model, args.seconds)
    print(f"{'':10}       MiB   difference   ms for {args.seconds:g} s")
    print(f"{'PyTorch':10}{pytorch.mib:10.1f}{'':13}{pytorch.milliseconds:14.1f}", flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    for dtype in args.dtype:
        program = export_program(model, args.seconds, dtype, folder)
        cells = f"{program.mib:10.1f}{program.difference:13.1e}{program.milliseconds:14.1f}"
        print(f"{dtype:10}{cells}   {program_path(folder, args.seconds, dtype)}", flush=True)


if __name__ == "__main__":
    main()
