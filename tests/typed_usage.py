"""What users write, for `make lint`: mypy must find their code right, and know the types that `assert_type` states."""

from typing import assert_type

import numpy as np
import torch
from transformers import BatchFeature

from hear_hf import (
    HEARConfig,
    HEARFeatureExtractor,
    HEARForAudioClassification,
    HEARForPreTraining,
    HEARModel,
    HEARModelOutput,
    HEARQuantizer,
    HEARQuantizerConfig,
    HEARQuantizerForPreTraining,
    HEARQuantizerOutput,
    HEARStream,
    HEARStreamResult,
)
from hear_hf.data.labelled import DataArguments, load_labelled_audio
from hear_hf.evaluation.frozen_encoders import FrozenEncoder
from hear_hf.training.classification import FineTuningArguments, ModelArguments, build_trainer


def configure() -> tuple[HEARConfig, HEARQuantizerConfig]:
    config = HEARConfig(hidden_size=128, hidden_dropout=0, sampling_rate=32_000)
    assert_type(config.hidden_size, int)
    assert_type(config.hop_length, int)
    return config, HEARQuantizerConfig(teacher_hidden_size=None)


def extract(clip: np.ndarray, recording: torch.Tensor) -> BatchFeature:
    extractor = HEARFeatureExtractor(sampling_rate=16_000)
    extractor(recording, sampling_rate=16_000)
    extractor([0.0] * 16_000, sampling_rate=16_000, return_tensors="np")
    return extractor([clip, clip[:8_000]], sampling_rate=16_000, padding=True, return_tensors="pt")


def classify(folder: str, batch: BatchFeature) -> torch.Tensor:
    model = assert_type(HEARForAudioClassification.from_pretrained(folder), HEARForAudioClassification)
    assert_type(model.config, HEARConfig)
    model.freeze_feature_encoder()
    return model(**batch, labels=torch.tensor([0, 1])).logits


def embed(config: HEARConfig, samples: torch.Tensor) -> torch.Tensor | None:
    outputs: HEARModelOutput = HEARModel(config)(samples, output_hidden_states=True)
    return outputs.pooler_output


def pretrain(samples: torch.Tensor, quantizer: HEARQuantizer, config: HEARConfig) -> None:
    codes: HEARQuantizerOutput = quantizer(samples)
    hidden = torch.zeros(1, 50, dtype=torch.bool)
    HEARForPreTraining(config)(samples, mask_time_indices=hidden, labels=codes.codes).loss.backward()
    trained = HEARQuantizerForPreTraining(assert_type(quantizer.config, HEARQuantizerConfig))
    trained(samples).loss.backward()
    trained.anneal_temperature()


def listen(model: HEARForAudioClassification, blocks: list[np.ndarray]) -> HEARStreamResult:
    stream = HEARStream(model, sampling_rate=16_000, window_seconds=1)
    for block in blocks:
        for result in stream.push(block):
            assert_type(result.scores, torch.Tensor)
    assert_type(stream.seconds, float)
    return stream.finish()


def fine_tune(folder: str) -> dict[str, float]:
    dataset = load_labelled_audio(DataArguments(data_dir=folder, validation_share=0.2))
    training_args = FineTuningArguments(output_dir="runs/mine", num_train_epochs=20, bf16=True)
    trainer = build_trainer(dataset, training_args, ModelArguments(model_name_or_path="hear_acoustic", freeze="none"))
    trainer.train()
    trainer.save_model()
    return trainer.evaluate()


def read_states(model: HEARModel, extractor: HEARFeatureExtractor, clip: np.ndarray) -> list[torch.Tensor]:
    encoder = assert_type(
        FrozenEncoder.from_pretrained("facebook/wav2vec2-base", layer=6, device="cpu"), FrozenEncoder
    )
    return encoder([clip], sampling_rate=44_100) + FrozenEncoder(model, extractor)([clip], sampling_rate=44_100)


def mistake() -> HEARConfig:
    return HEARConfig(hidden_size="wide")  # type: ignore[arg-type]  # unused, and so an error, were it not refused
