r"""Runs teachers once over unlabelled audio and stores what they make of it, so that a model can learn from it often.

    python examples/precompute_teacher.py --data_dir my_recordings --output_dir runs/teacher \
        --teacher_name_or_path MIT/ast-finetuned-audioset-10-10-0.4593
    python examples/train_quantizer.py --train_file 'runs/teacher/*.parquet'
    python examples/pretrain.py --train_file 'runs/teacher/*.parquet'

For distill.py, labels and embeddings of one or several teachers:

    python examples/precompute_teacher.py --data_dir my_recordings --output_dir runs/teachers --for_distillation \
        --teacher_name_or_path mn04 speech_embedding --teacher_trust_remote_code
    python examples/distill.py --train_file 'runs/teachers/*.parquet' --stored_teachers --mixture_share 0

The tables hold the clips, or their paths if they lie in files, and the column `teacher_hidden_states` or
`teacher_outputs`. The same command given again continues after the last complete table.
"""

import logging
from pathlib import Path

import torch

from hear_hf.arguments import parse_arguments
from hear_hf.data.unlabelled import UnlabelledAudioArguments, load_whole_source
from hear_hf.training.distillation_teachers import load_teachers
from hear_hf.training.precomputing import PrecomputingArguments, StatesToStore, StoredTeacherArguments, precompute
from hear_hf.training.stored_teachers import OutputsToStore
from hear_hf.training.teachers import load_encoder


def main(argv: list[str] | None = None) -> list[Path]:
    arguments = (PrecomputingArguments, StoredTeacherArguments, UnlabelledAudioArguments)
    args, teacher_args, data_args = parse_arguments(arguments, argv, __doc__)
    logging.basicConfig(level=logging.INFO, format="%(message)s")

    if args.for_distillation:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        storable = OutputsToStore(load_teachers(teacher_args, OutputsToStore.sampling_rate, device))
        following = "distill.py --stored_teachers --mixture_share 0"
    else:
        encoder_args = teacher_args.only_one()
        storable = StatesToStore(load_encoder(encoder_args), encoder_args)
        following = "train_quantizer.py"
    paths = precompute(load_whole_source(data_args), storable, data_args, args)
    print(f"Next: python examples/{following} --train_file '{args.output_dir}/*.parquet'")
    return paths


if __name__ == "__main__":
    main()
