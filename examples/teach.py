"""Teaches HEAR your own sounds or words from a handful of clips, in seconds: a linear head on its frozen features.

One folder per label, from a pretrained checkpoint:

    python examples/teach.py --model_name_or_path checkpoints/hear-tiny --data_dir my_sounds --output_dir runs/mine

A wake word, one folder of clips of it, against whatever else is heard:

    python examples/teach.py --model_name_or_path checkpoints/hear-tiny --data_dir my_words --unknown other_sounds
"""

import logging

from transformers import set_seed

from hear_hf.arguments import parse_arguments
from hear_hf.data.labelled import DataArguments
from hear_hf.training.few_shot import TeachingArguments, load_base, load_taught_audio, load_unknown, teach
from hear_hf.training.teaching_reports import report_teaching
from hear_hf.training.views import ViewArguments


def main(argv: list[str] | None = None) -> dict:
    args, data_args, view_args = parse_arguments((TeachingArguments, DataArguments, ViewArguments), argv, __doc__)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    set_seed(args.seed)

    model, feature_extractor = load_base(args)
    dataset, unknown = load_taught_audio(data_args, args), load_unknown(args)
    lesson = teach(model, feature_extractor, dataset, args, view_args, unknown, data_args)

    return report_teaching(lesson, feature_extractor, args, data_args, view_args)


if __name__ == "__main__":
    main()
