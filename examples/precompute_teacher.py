"""Runs a teacher once over unlabelled audio and stores its states, so that the quantizer can learn from them often.

    python examples/precompute_teacher.py --data_dir my_recordings --output_dir runs/teacher \
        --teacher_name_or_path MIT/ast-finetuned-audioset-10-10-0.4593
    python examples/train_quantizer.py --train_file 'runs/teacher/*.parquet'
    python examples/pretrain.py --train_file 'runs/teacher/*.parquet'

The tables hold the clips, or their paths if they lie in files, and the column `teacher_hidden_states`. The same
command given again goes on behind the last whole table.
"""

from dataclasses import replace
from pathlib import Path

from hear_hf.arguments import parse_arguments
from hear_hf.data.unlabelled import PretrainingDataArguments, load_unlabelled_audio
from hear_hf.evaluation.frozen_encoders import FrozenEncoder
from hear_hf.training.precomputing import PrecomputingArguments, precompute
from hear_hf.training.teachers import TeacherArguments


def main(argv: list[str] | None = None) -> list[Path]:
    arguments = (PrecomputingArguments, TeacherArguments, PretrainingDataArguments)
    args, teacher_args, data_args = parse_arguments(arguments, argv)
    if teacher_args.teacher_name_or_path is None:
        raise ValueError("`teacher_name_or_path` must name an audio model of Transformers, found none.")
    if data_args.streaming:
        raise ValueError("The clips must come without `streaming`: give the tables of a large set one after another.")
    clips, _ = load_unlabelled_audio(replace(data_args, validation_share=0.0))
    encoder = FrozenEncoder.from_pretrained(
        teacher_args.teacher_name_or_path,
        layer=teacher_args.teacher_layer,
        revision=teacher_args.teacher_revision,
        trust_remote_code=teacher_args.teacher_trust_remote_code,
    )
    teacher = {
        "name": teacher_args.teacher_name_or_path,
        "layer": teacher_args.teacher_layer,
        "revision": teacher_args.teacher_revision,
    }
    paths = precompute(clips.select_columns("audio"), encoder, teacher, args)
    print(f"Next: python examples/train_quantizer.py --train_file '{args.output_dir}/*.parquet'")
    return paths


if __name__ == "__main__":
    main()
