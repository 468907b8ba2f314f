"""Makes the tests that Transformers shares among its models importable here, and lends our classes to them.

Their source distribution holds `tests/test_*.py`, but not the sub-packages of `tests` that these import: what they use
of those stands in below. Our model types join the tables of names by which the tests tell what a class is for. All of
this happens in memory.
"""

import json
import os
import re
import sys
from types import ModuleType
from unittest import mock

import numpy as np
import pytest
import torch
from transformers import AudioClassificationPipeline
from transformers.models.auto import modeling_auto

import hear_hf
from fetch_suite import suite_folder

TESTS, TINY_MODELS = suite_folder() / "tests", suite_folder() / "models"
if not TESTS.is_dir():
    raise FileNotFoundError(f"{TESTS} must hold Transformers' tests, found no such folder. Run `make peer-test`.")

# Values other than the defaults, which every configuration must keep.
COMMON_CONFIG_VALUES = {
    "architectures": ["HEARModel"],
    "chunk_size_feed_forward": 3,
    "dtype": "float16",
    "id2label": {0: "rain", 1: "wind"},
    "label2id": {"rain": 0, "wind": 1},
    "is_encoder_decoder": True,
    "output_attentions": True,
    "output_hidden_states": True,
    "problem_type": "regression",
    "return_dict": False,
}


class AudioClassificationPipelineTests:
    """What the pipeline tests do with a model and a feature extractor that they have loaded."""

    def get_test_pipeline(self, model, tokenizer, feature_extractor, dtype):
        self.tolerance = 1e-5 if dtype == "float32" else 1e-2
        classifier = AudioClassificationPipeline(
            model=model.to(getattr(torch, dtype)), tokenizer=tokenizer, feature_extractor=feature_extractor
        )
        generator = np.random.default_rng(0)
        return classifier, [0.1 * generator.standard_normal(length) for length in (4000, 9000, 2500)]

    def run_pipeline_test(self, classifier, clips):
        alone = [scores(classifier(clip, top_k=None)) for clip in clips]
        for found in alone:
            assert found.keys() == classifier.model.config.label2id.keys()
            assert sum(found.values()) == pytest.approx(1, abs=self.tolerance)
        batched = classifier(clips, top_k=None, batch_size=2)
        assert [scores(guesses) for guesses in batched] == [
            pytest.approx(found, abs=self.tolerance) for found in alone
        ]


def scores(guesses: list[dict]) -> dict[str, float]:
    return {guess["label"]: guess["score"] for guess in guesses}


def stand_in(name: str, **contents) -> None:
    """Puts a module `name` in place that holds `contents`."""
    sys.modules[name] = ModuleType(name)
    vars(sys.modules[name]).update(contents)


def put_stand_ins() -> None:
    stand_in("tests", __path__=[str(TESTS)])
    stand_in("tests.exporters.test_export", ExportTesterMixin=object)
    stand_in("tests.generation.test_utils", GenerationTesterMixin=type("GenerationTesterMixin", (), {}))
    stand_in("tests.utils.test_configuration_utils", config_common_kwargs=COMMON_CONFIG_VALUES)
    # The pipelines' own tests are 24 modules, of which we need one.
    for pipeline in re.findall(r"\bpipelines\.test_pipelines_\w+", (TESTS / "test_pipeline_mixin.py").read_text()):
        sys.modules[f"tests.{pipeline}"] = mock.MagicMock()
    stand_in(
        "tests.pipelines.test_pipelines_audio_classification",
        AudioClassificationPipelineTests=AudioClassificationPipelineTests,
    )


def list_tiny_models() -> None:
    """Lists our model where the pipeline tests look for it: their own list is not in the source distribution."""
    ours = {"HEARForAudioClassification": {"tokenizer_classes": [], "processor_classes": ["HEARFeatureExtractor"]}}
    (TINY_MODELS / "reports").mkdir(parents=True, exist_ok=True)
    (TINY_MODELS / "reports" / "tiny_model_summary.json").write_text(json.dumps(ours))
    os.environ["TRANSFORMERS_TINY_MODEL_PATH"] = str(TINY_MODELS)


def name_models() -> None:
    modeling_auto.MODEL_MAPPING_NAMES.update(hear="HEARModel", hear_quantizer="HEARQuantizer")
    modeling_auto.MODEL_FOR_PRETRAINING_MAPPING_NAMES.update(
        hear="HEARForPreTraining", hear_quantizer="HEARQuantizerForPreTraining"
    )
    modeling_auto.MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES.update(hear="HEARForAudioClassification")


put_stand_ins()
list_tiny_models()
name_models()

# The pipeline tests look for processors by name in what they take for Transformers' source.
with mock.patch("transformers.utils.direct_transformers_import", return_value=hear_hf):
    from tests.test_configuration_common import ConfigTester
    from tests.test_modeling_common import ModelTesterMixin
    from tests.test_pipeline_mixin import PipelineTesterMixin
    from tests.test_sequence_feature_extraction_common import SequenceFeatureExtractionTestMixin

__all__ = [
    "TINY_MODELS",
    "ConfigTester",
    "ModelTesterMixin",
    "PipelineTesterMixin",
    "SequenceFeatureExtractionTestMixin",
]
