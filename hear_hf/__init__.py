"""HEAR (arXiv:2603.26098), a small audio model, for the Hugging Face ecosystem."""

from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, AutoModelForAudioClassification

from .configuration_hear import HEARConfig
from .feature_extraction_hear import HEARFeatureExtractor
from .modeling_hear import HEARForAudioClassification, HEARModel, HEARModelOutput, HEARPreTrainedModel

__version__ = "0.1.0.dev0"

AutoConfig.register("hear", HEARConfig)
AutoFeatureExtractor.register(HEARConfig, HEARFeatureExtractor)
AutoModel.register(HEARConfig, HEARModel)
AutoModelForAudioClassification.register(HEARConfig, HEARForAudioClassification)

# Saved folders carry the code, so that they load where this package is absent.
HEARConfig.register_for_auto_class()
HEARFeatureExtractor.register_for_auto_class()
HEARModel.register_for_auto_class("AutoModel")
HEARForAudioClassification.register_for_auto_class("AutoModelForAudioClassification")

__all__ = [
    "HEARConfig",
    "HEARFeatureExtractor",
    "HEARForAudioClassification",
    "HEARModel",
    "HEARModelOutput",
    "HEARPreTrainedModel",
]
