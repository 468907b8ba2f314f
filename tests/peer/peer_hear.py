"""HEAR's models and configuration against the tests that Transformers' own models pass."""

import unittest
from itertools import product

import torch
from transformers.testing_utils import torch_device

from hear_hf import (
    HEARConfig,
    HEARFeatureExtractor,
    HEARForAudioClassification,
    HEARForAudioFrameClassification,
    HEARForPreTraining,
    HEARModel,
)
from helpers import SMALL, noise, ragged_batch, samples_of, small_model
from transformers_suite import TINY_MODELS, ConfigTester, ModelTesterMixin, PipelineTesterMixin

SIZES = {name: size for name, size in SMALL.items() if name != "num_labels"}  # which the tests choose themselves


class HEARModelTester:
    """Small models, and a ragged batch for them that fits one window: of several, attentions come window by window."""

    batch_size, seq_length = 3, 25
    is_training = True

    def __init__(self, config_class=HEARConfig, **sizes):
        self.config_class, self.sizes = config_class, sizes
        config = self.get_config()
        self.hidden_size = config.hidden_size
        self.num_hidden_layers = config.num_hidden_layers
        self.num_attention_heads = config.num_attention_heads

    def get_config(self):
        return self.config_class(**self.sizes)

    def prepare_config_and_inputs_for_common(self):
        clips = [noise(samples_of(num_frames)) for num_frames in (self.seq_length, 11, 18)]
        input_values, attention_mask = ragged_batch(clips)
        inputs = {"input_values": input_values, "attention_mask": attention_mask}
        return self.get_config(), {name: value.to(torch_device) for name, value in inputs.items()}


class HEARModelTesterMixin(ModelTesterMixin):
    """What Transformers' tests of models must be told about all of ours."""

    test_resize_embeddings = False  # there are no token embeddings
    test_can_init_all_missing_weights_before_2023 = True  # the year would be in the configuration's file

    @unittest.skip("The model reads waveforms: it has no token embeddings")
    def test_model_get_set_embeddings(self):
        pass

    def test_model_outputs_equivalence(self):
        """Ours, since theirs subtracts outputs, which torch refuses for the booleans of the frame mask."""
        config, inputs = self.model_tester.prepare_config_and_inputs_for_common()
        flags = ("output_hidden_states", "output_attentions") if self.has_attentions else ()
        for model_class, *values in product(self.all_model_classes, *[(False, True)] * (1 + len(flags))):
            model = model_class(config).to(torch_device).eval()
            given = self._prepare_for_class(inputs, model_class, return_labels=values[0])
            given |= dict(zip(flags, values[1:], strict=True))
            with self.subTest(model_class.__name__, values=values), torch.no_grad():
                expected = model(**given, return_dict=True).to_tuple()
                torch.testing.assert_close(model(**given, return_dict=False), expected)


class HEARModelTest(HEARModelTesterMixin, PipelineTesterMixin, unittest.TestCase):
    all_model_classes = (HEARModel, HEARForAudioClassification, HEARForAudioFrameClassification)
    pipeline_model_mapping = {"audio-classification": HEARForAudioClassification}

    @classmethod
    def setUpClass(cls):
        folder = TINY_MODELS / "hear" / "HEARForAudioClassification"
        small_model().save_pretrained(folder)
        HEARFeatureExtractor().save_pretrained(folder)

    def setUp(self):
        self.model_tester = HEARModelTester(**SIZES)

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        """Theirs makes no labels of frames."""
        inputs = super()._prepare_for_class(inputs_dict, model_class, return_labels)
        if return_labels and model_class is HEARForAudioFrameClassification:
            tester = self.model_tester
            shape = (tester.batch_size, tester.seq_length, tester.get_config().num_labels)
            inputs["labels"] = torch.zeros(shape, device=torch_device)
        return inputs

    def skipTest(self, reason):
        self.assertNotIn("Could not", reason)  # the pipeline tests skip what fails to load
        super().skipTest(reason)

    def test_config(self):
        ConfigTester(self, config_class=HEARConfig, has_text_modality=False, **SIZES).run_common_tests()

    def test_attention_outputs(self):
        self.model_tester.num_hidden_layers += 1  # the task model's layer comes last
        super().test_attention_outputs()

    def test_hidden_states_output(self):
        self.model_tester.num_hidden_layers += 1  # as above
        super().test_hidden_states_output()


class HEARForPreTrainingTest(HEARModelTesterMixin, unittest.TestCase):
    all_model_classes = (HEARForPreTraining,)

    def setUp(self):
        self.model_tester = HEARModelTester(**SIZES)

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        """Theirs makes no codes, nor a mask."""
        inputs = super()._prepare_for_class(inputs_dict, model_class, return_labels)
        if return_labels:
            frames = torch.arange(self.model_tester.seq_length, device=torch_device)
            frames = frames.expand(self.model_tester.batch_size, -1)
            inputs |= {"labels": frames, "mask_time_indices": frames % 2 == 0}
        return inputs
