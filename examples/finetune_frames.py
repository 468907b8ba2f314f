"""Trains HEAR to say what is heard when, on annotated recordings, or on soundscapes made on the spot.

On soundscapes of the embedded spoken digits, at 0 to 20 dB over noise:

    python examples/finetune_frames.py --model_name_or_path checkpoints/hear-tiny --output_dir runs/heard_digits

On your own recordings, each with Audacity's label track or Raven's selection table beside it:

    python examples/finetune_frames.py --data_dir my_recordings --model_name_or_path checkpoints/hear-tiny

Needs `pip install "hear_hf[events]"`.
"""

from hear_hf.arguments import parse_arguments
from hear_hf.data.annotated import AnnotatedDataArguments, load_annotated_audio
from hear_hf.data.soundscapes import SoundscapeArguments
from hear_hf.evaluation.sound_events import metrics_package
from hear_hf.training.classification import ModelArguments
from hear_hf.training.frame_reports import report_frames
from hear_hf.training.frames import FrameTrainingArguments, build_frame_trainer
from hear_hf.training.runs import start


def main(argv: list[str] | None = None) -> dict[str, float]:
    arguments = (ModelArguments, AnnotatedDataArguments, SoundscapeArguments, FrameTrainingArguments)
    model_args, data_args, soundscape_args, training_args = parse_arguments(arguments, argv, __doc__)
    metrics_package()  # before the hours of training, after which it would be missed
    start(training_args, model_args, data_args, soundscape_args)

    with training_args.main_process_first(desc="loading the recordings"):
        dataset = load_annotated_audio(data_args, soundscape_args, training_args.seed)
    trainer = build_frame_trainer(dataset, training_args, model_args, data_args.weak_labels)

    result = trainer.train(resume_from_checkpoint=training_args.resume_from_checkpoint)
    trainer.choose_decoding()
    trainer.save_model()
    trainer.save_state()
    trainer.save_metrics("train", result.metrics)

    split = "test" if "test" in dataset else "validation"
    scores = trainer.score(dataset[split])
    metrics = {f"{split}_{name}": score for name, score in scores.metrics.items()}
    trainer.save_metrics(split, metrics)

    if trainer.is_world_process_zero():
        report_frames(trainer, dataset, split, scores, data_args, model_args.model_name_or_path)
    trainer.publish()
    return metrics


if __name__ == "__main__":
    main()
