"""A model and its feature extractor state one rate each: wherever both are loaded, two rates are refused."""

import pytest
import torch

from hear_hf import HEARFeatureExtractor
from hear_hf.evaluation.frozen_encoders import FrozenEncoder
from hear_hf.training.classification import ModelArguments, load_model
from hear_hf.training.distillation_teachers import DistillationTeacherArguments, load_teachers
from helpers import small_model

TWO_RATES = "must be the same in its config.json and preprocessor_config.json, found: 16000 and 32000 Hz"


@pytest.fixture
def folder(tmp_path):
    small_model().save_pretrained(tmp_path)
    HEARFeatureExtractor(sampling_rate=32_000).save_pretrained(tmp_path)
    return str(tmp_path)


def test_a_frozen_encoder_of_two_rates_is_refused(folder):
    with pytest.raises(ValueError, match=TWO_RATES):
        FrozenEncoder.from_pretrained(folder)


def test_fine_tuning_a_model_of_two_rates_is_refused(folder):
    with pytest.raises(ValueError, match=TWO_RATES):
        load_model(ModelArguments(model_name_or_path=folder), ["cat", "dog"], False)


def test_a_teacher_of_two_rates_is_refused(folder):
    args = DistillationTeacherArguments(teacher_name_or_path=[folder])
    with pytest.raises(ValueError, match=f"The `sampling_rate` of the teacher {folder} {TWO_RATES}"):
        load_teachers(args, 16_000, torch.device("cpu"))
