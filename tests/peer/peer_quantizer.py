"""HEAR's quantizer and its configuration against the tests that Transformers' own models pass."""

import unittest

import torch
from transformers.testing_utils import torch_device

from golden import SMALL_QUANTIZER
from hear_hf import HEARQuantizer, HEARQuantizerConfig, HEARQuantizerForPreTraining
from peer_hear import HEARModelTester, HEARModelTesterMixin
from transformers_suite import ConfigTester


class HEARQuantizerTest(HEARModelTesterMixin, unittest.TestCase):
    all_model_classes = (HEARQuantizer,)

    def setUp(self):
        self.model_tester = HEARModelTester(HEARQuantizerConfig, **SMALL_QUANTIZER)

    def test_config(self):
        tester = ConfigTester(self, config_class=HEARQuantizerConfig, has_text_modality=False, **SMALL_QUANTIZER)
        tester.run_common_tests()


class HEARQuantizerForPreTrainingTest(HEARModelTesterMixin, unittest.TestCase):
    all_model_classes = (HEARQuantizerForPreTraining,)

    def setUp(self):
        self.model_tester = HEARModelTester(HEARQuantizerConfig, **SMALL_QUANTIZER)

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        """Theirs has no teacher."""
        inputs = super()._prepare_for_class(inputs_dict, model_class, return_labels)
        if return_labels:
            frames = torch.arange(self.model_tester.seq_length, dtype=torch.float32, device=torch_device)
            size = (self.model_tester.batch_size, -1, SMALL_QUANTIZER["teacher_hidden_size"])
            inputs["teacher_hidden_states"] = frames[:, None].sin().expand(size)
        return inputs
