r"""Distils one or several teachers into a HEAR of any size, on unlabelled audio.

From a model of AudioSet's 527 sounds and one of spoken words (docs/conversion.md makes both) into one of 1.8 M
parameters:

    python examples/distill.py --data_dir my_recordings --output_dir runs/distilled \
        --teacher_name_or_path mn04 speech_embedding --teacher_trust_remote_code \
        --config_overrides hidden_size=128,intermediate_size=512,num_hidden_layers=4,task_hidden_size=128

The result names sounds at once: `predict.py runs/distilled clip.wav`. With `--frame_labels` it also says when each is
heard.
"""

from transformers import set_seed

from hear_hf import HEARFeatureExtractor
from hear_hf.arguments import parse_arguments
from hear_hf.data.mixtures import MixtureArguments
from hear_hf.data.unlabelled import DistillationDataArguments
from hear_hf.evaluation.metrics import teacher_label_metrics
from hear_hf.training.distillation import (
    DistillationArguments,
    DistillationModel,
    DistillationTrainer,
    LossWeights,
    use_labels,
)
from hear_hf.training.distillation_students import (
    StudentArguments,
    check_frame_labels,
    load_student,
    load_student_config,
)
from hear_hf.training.distillation_teachers import (
    DistillationTeacherArguments,
    first_labelled,
    load_teachers,
    measure,
)
from hear_hf.training.pretraining import PretrainingCollator, load_clips, run
from hear_hf.training.reports import report_distillation
from hear_hf.training.runs import start
from hear_hf.training.stored_teachers import load_stored_teachers
from hear_hf.training.student_probe import StudentProbeArguments, load_probe


def main(argv: list[str] | None = None) -> dict[str, float]:
    arguments = (StudentArguments, DistillationTeacherArguments, DistillationDataArguments, MixtureArguments)
    arguments += (StudentProbeArguments, DistillationArguments)
    model_args, teacher_args, data_args, mixture_args, probe_args, training_args = parse_arguments(
        arguments, argv, __doc__
    )
    start(training_args, model_args, teacher_args, data_args, mixture_args)

    config = load_student_config(model_args)
    if data_args.stored_teachers:
        teachers = load_stored_teachers(data_args, training_args.device)
    else:
        teachers = load_teachers(teacher_args, config.sampling_rate, training_args.device)
    check_frame_labels(model_args, first_labelled(teachers))
    train, validation = load_clips(config, data_args, training_args, random_speed=mixture_args.random_speed)
    for clips in (train, validation):
        use_labels(clips, first_labelled(teachers))
    measure(teachers, train, training_args.num_statistics_clips, training_args.resume_from_checkpoint)

    set_seed(training_args.seed)  # the student is the same whatever the teachers drew
    student = load_student(model_args, config, first_labelled(teachers))
    feature_extractor = HEARFeatureExtractor(sampling_rate=config.sampling_rate)
    trainer = DistillationTrainer(
        DistillationModel(student, teachers, LossWeights.of(training_args)),
        training_args,
        data_collator=PretrainingCollator(feature_extractor),
        train_dataset=train,
        eval_dataset=validation,
        processing_class=feature_extractor,
        compute_metrics=teacher_label_metrics,
        teachers=teachers,
        mixture_args=mixture_args,
        probe=load_probe(probe_args, feature_extractor, training_args.seed),
    )
    return run(
        trainer, lambda metrics: report_distillation(trainer, metrics, data_args, model_args.model_name_or_path)
    )


if __name__ == "__main__":
    main()
