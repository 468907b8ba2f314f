r"""Runs a teacher once over unlabelled audio and stores its states, so that the quantizer can learn from them often.

    python examples/precompute_teacher.py --data_dir my_recordings --output_dir runs/teacher \
        --teacher_name_or_path MIT/ast-finetuned-audioset-10-10-0.4593
    python examples/train_quantizer.py --train_file 'runs/teacher/*.parquet'
    python examples/pretrain.py --train_file 'runs/teacher/*.parquet'

The tables hold the clips, or their paths if they lie in files, and the column `teacher_hidden_states`. The same
command given again continues after the last complete table.
"""

import logging
from pathlib import Path

from hear_hf.arguments import parse_arguments
from hear_hf.data.unlabelled import UnlabelledAudioArguments, load_whole_source
from hear_hf.training.precomputing import PrecomputingArguments, precompute
from hear_hf.training.teachers import TeacherArguments, load_encoder


def main(argv: list[str] | None = None) -> list[Path]:
    arguments = (PrecomputingArguments, TeacherArguments, UnlabelledAudioArguments)
    args, teacher_args, data_args = parse_arguments(arguments, argv, __doc__)
    logging.basicConfig(level=logging.INFO, format="%(message)s")

    encoder = load_encoder(teacher_args)
    clips = load_whole_source(data_args)
    paths = precompute(clips, encoder, teacher_args, data_args, args)
    print(f"Next: python examples/train_quantizer.py --train_file '{args.output_dir}/*.parquet'")
    return paths


if __name__ == "__main__":
    main()
