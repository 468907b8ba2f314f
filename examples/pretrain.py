r"""Pretrains HEAR's acoustic model by masked audio modelling: stage 2 of the pretraining (paper, 3.2).

On the embedded spoken digits, after `python examples/train_quantizer.py`, on a laptop in minutes:

    python examples/pretrain.py

On your own recordings, with a quantizer of your own:

    python examples/pretrain.py --data_dir my_recordings --quantizer_name_or_path runs/my_quantizer \
        --output_dir runs/my_pretrained

Stage 3 is `finetune.py --model_name_or_path runs/my_pretrained --acoustic_learning_rate_scale 0.1`.
"""

from pathlib import Path

from hear_hf import HEARFeatureExtractor
from hear_hf.arguments import parse_arguments
from hear_hf.data.unlabelled import PretrainingDataArguments
from hear_hf.training.masked_modelling import (
    MaskedModellingArguments,
    MaskedModellingTrainer,
    PretrainingModelArguments,
    add_codes,
    describe_masking,
    load_model,
    load_quantizer,
    save_quantizer,
)
from hear_hf.training.pretraining import PretrainingCollator, load_clips, run
from hear_hf.training.reports import report_pretraining
from hear_hf.training.runs import start


def main(argv: list[str] | None = None) -> dict[str, float]:
    arguments = (PretrainingModelArguments, PretrainingDataArguments, MaskedModellingArguments)
    model_args, data_args, training_args = parse_arguments(arguments, argv, __doc__)
    start(training_args, model_args, data_args)

    quantizer = load_quantizer(model_args)
    model = load_model(model_args, quantizer)
    train, validation = load_clips(model.config, data_args, training_args)
    if model_args.precompute_codes:
        train, validation = (add_codes(clips, quantizer, training_args.device) for clips in (train, validation))
    feature_extractor = HEARFeatureExtractor(sampling_rate=model.config.sampling_rate)
    trainer = MaskedModellingTrainer(
        model,
        training_args,
        data_collator=PretrainingCollator(feature_extractor, model_args.mask_time_prob, model_args.mask_time_length),
        train_dataset=train,
        eval_dataset=validation,
        processing_class=feature_extractor,
        quantizer=quantizer,
    )
    if trainer.is_world_process_zero():
        save_quantizer(quantizer, feature_extractor, Path(training_args.output_dir))
    return run(trainer, lambda metrics: report_pretraining(trainer, metrics, data_args, describe_masking(model_args)))


if __name__ == "__main__":
    main()
