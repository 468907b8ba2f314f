r"""Scores exported files beside PyTorch on labelled audio: what do the smaller types lose, and gain?

    python examples/score_onnx.py --model_name_or_path runs/mine --onnx_dir runs/mine_onnx \
        --train_file train.csv --test_file test.csv

Clips are taken one by one, as a device would, from the test split, or without one from the validation split. Programs
of ExecuTorch read one length: shorter clips are repeated, longer ones cut. Needs `pip install "hear_hf[onnx]"`.
"""

import torch

from hear_hf.arguments import parse_arguments
from hear_hf.classifiers import loading
from hear_hf.data.labelled import DataArguments, load_labelled_audio
from hear_hf.deployment.onnx_scoring import ScoringArguments, contestants, score
from hear_hf.exports import load_classifier


def main(argv: list[str] | None = None) -> None:
    args, data_args = parse_arguments((ScoringArguments, DataArguments), argv, __doc__)
    torch.set_num_threads(args.threads)

    splits = load_labelled_audio(data_args)
    clips = splits["test" if "test" in splits else "validation"]
    with loading(args.model_name_or_path):
        model = load_classifier(args.model_name_or_path)
    rows = score(contestants(model, args.onnx_dir), clips, model)

    print("| " + " | ".join(rows[0]) + " |\n|" + "---|" * len(rows[0]))
    for row in rows:
        print("| " + " | ".join(value if isinstance(value, str) else f"{value:.1f}" for value in row.values()) + " |")


if __name__ == "__main__":
    main()
