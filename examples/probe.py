"""Probes frozen audio models: logistic regression on their pooled hidden states measures how much a checkpoint knows.

On the embedded spoken digits, a checkpoint beside one of the Hub and beside random weights:

    python examples/probe.py --model_name_or_path runs/pretrained facebook/wav2vec2-base --random_baseline

Every layer, on your own table, leaving out one value of its column `fold` at a time:

    python examples/probe.py --model_name_or_path runs/pretrained --layer all --train_file clips.csv --fold_column fold
"""

import logging

from transformers import set_seed

from hear_hf.arguments import parse_arguments
from hear_hf.data.labelled import DataArguments, load_labelled_audio
from hear_hf.evaluation.folds import gather_clips
from hear_hf.evaluation.probe_reports import report
from hear_hf.evaluation.probing import ProbeArguments, load_encoders, probe_model


def main(argv: list[str] | None = None) -> dict:
    args, data_args = parse_arguments((ProbeArguments, DataArguments), argv, __doc__)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    set_seed(args.seed)

    keep_columns = () if args.fold_column is None else (args.fold_column,)
    dataset = load_labelled_audio(data_args, args.seed, keep_columns)
    clips = gather_clips(dataset, args.fold_column, args.num_folds)

    rows = []
    for name, encoder in load_encoders(args):
        rows += probe_model(name, encoder, clips, args)

    return report(rows, clips, args, data_args)


if __name__ == "__main__":
    main()
