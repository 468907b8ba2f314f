"""HEARFeatureExtractor against the tests of Transformers' own feature extractors."""

import unittest

import numpy as np

from hear_hf import HEARFeatureExtractor
from transformers_suite import SequenceFeatureExtractionTestMixin


class HEARFeatureExtractionTester:
    batch_size, feature_size = 7, 1
    min_seq_length, seq_length_diff = 400, 267
    lengths = range(min_seq_length, min_seq_length + batch_size * seq_length_diff, seq_length_diff)
    max_seq_length = lengths[-2]  # the padding tests take it for one step below the longest

    def prepare_feat_extract_dict(self):
        return {"feature_size": 1, "sampling_rate": 32_000, "padding_value": 0.5, "return_attention_mask": False}

    def prepare_inputs_for_common(self, equal_length=False, numpify=False):
        generator = np.random.default_rng(0)
        clips = [generator.standard_normal(self.lengths[0] if equal_length else length) for length in self.lengths]
        return clips if numpify else [clip.tolist() for clip in clips]


class HEARFeatureExtractionTest(SequenceFeatureExtractionTestMixin, unittest.TestCase):
    feature_extraction_class = HEARFeatureExtractor
    feat_extract_tester = HEARFeatureExtractionTester()
