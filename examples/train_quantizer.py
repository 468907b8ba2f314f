r"""Trains HEAR's quantizer, its acoustic tokenizer, on unlabelled audio: stage 1 of the pretraining (paper, 3.2).

On the embedded spoken digits, without a teacher, on a laptop in minutes:

    python examples/train_quantizer.py

On your own recordings, distilled from any audio model of the Hub:

    python examples/train_quantizer.py --data_dir my_recordings --teacher_name_or_path microsoft/wavlm-base \
        --teacher_layer 9 --output_dir runs/my_quantizer

Stage 2 is `pretrain.py --quantizer_name_or_path runs/my_quantizer`.
"""

from hear_hf import HEARFeatureExtractor
from hear_hf.arguments import parse_arguments
from hear_hf.data.teacher_states import TeacherStatesArguments
from hear_hf.data.unlabelled import PretrainingDataArguments
from hear_hf.training.pretraining import PretrainingCollator, load_clips, run
from hear_hf.training.quantization import (
    QuantizerArguments,
    QuantizerTrainer,
    QuantizerTrainingArguments,
    describe_teacher,
    load_config,
    load_model,
    load_teacher,
    temperature_decay,
)
from hear_hf.training.reports import report_pretraining
from hear_hf.training.runs import start
from hear_hf.training.teachers import TeacherArguments


def main(argv: list[str] | None = None) -> dict[str, float]:
    arguments = (QuantizerArguments, TeacherArguments, TeacherStatesArguments, PretrainingDataArguments)
    arguments += (QuantizerTrainingArguments,)
    model_args, teacher_args, states_args, data_args, training_args = parse_arguments(arguments, argv, __doc__)
    start(training_args, model_args, teacher_args, states_args, data_args)

    config = load_config(model_args)
    train, validation = load_clips(config, data_args, training_args, states_args)
    teacher = load_teacher(teacher_args, states_args, train, config.sampling_rate, training_args.device)
    source = teacher or train.teacher
    config.teacher_hidden_size = None if source is None else source.hidden_size
    if model_args.temperature_anneal_share > 0:
        num_steps = training_args.num_steps(train)
        config.gumbel_temperature_decay = temperature_decay(config, num_steps, model_args.temperature_anneal_share)

    model = load_model(model_args, config)
    feature_extractor = HEARFeatureExtractor(sampling_rate=config.sampling_rate)
    trainer = QuantizerTrainer(
        model,
        training_args,
        data_collator=PretrainingCollator(feature_extractor),
        train_dataset=train,
        eval_dataset=validation,
        processing_class=feature_extractor,
        teacher=teacher,
    )
    return run(
        trainer, lambda metrics: report_pretraining(trainer, metrics, data_args, describe_teacher(teacher_args, train))
    )


if __name__ == "__main__":
    main()
