"""Fine-tunes HEAR, or trains it from scratch, on labelled audio (paper, section 4.3).

On the embedded spoken digits, on a laptop in minutes:

    python examples/finetune.py --output_dir runs/digits

On your own sounds, one folder per class, from a pretrained checkpoint:

    python examples/finetune.py --data_dir my_sounds --model_name_or_path runs/pretrained --output_dir runs/mine

`--lora_r 8` trains a small adapter, and leaves the checkpoint as it is.
"""

from hear_hf.arguments import parse_arguments
from hear_hf.data.augmentation import AugmentationArguments
from hear_hf.data.labelled import DataArguments, load_labelled_audio
from hear_hf.data.preparation import prepare_clips
from hear_hf.training.adapters import AdapterArguments
from hear_hf.training.classification import FineTuningArguments, ModelArguments, build_trainer
from hear_hf.training.reports import report_classifier
from hear_hf.training.runs import start


def main(argv: list[str] | None = None) -> dict[str, float]:
    arguments = (ModelArguments, AdapterArguments, DataArguments, AugmentationArguments, FineTuningArguments)
    model_args, adapter_args, data_args, augmentation_args, training_args = parse_arguments(arguments, argv, __doc__)
    start(training_args, model_args, adapter_args, data_args, augmentation_args)

    with training_args.main_process_first(desc="loading the clips"):
        dataset = load_labelled_audio(data_args, training_args.seed)
    trainer = build_trainer(dataset, training_args, model_args, augmentation_args, adapter_args)

    result = trainer.train(resume_from_checkpoint=training_args.resume_from_checkpoint)
    if adapter_args.merge_adapter:
        trainer.merge_adapter()
    trainer.save_model()
    trainer.save_state()
    trainer.save_metrics("train", result.metrics)

    split = "test" if "test" in dataset else "validation"
    clips = prepare_clips(dataset[split], trainer.processing_class.sampling_rate)
    prediction = trainer.predict(clips, metric_key_prefix=split)
    trainer.save_metrics(split, prediction.metrics)

    if trainer.is_world_process_zero():
        report_classifier(trainer, dataset, split, prediction, data_args, model_args.model_name_or_path)
    trainer.publish()
    return prediction.metrics


if __name__ == "__main__":
    main()
