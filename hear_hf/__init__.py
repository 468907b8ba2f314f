"""HEAR (arXiv:2603.26098), a small audio model, for the Hugging Face ecosystem."""

from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForAudioClassification,
    AutoModelForAudioFrameClassification,
    AutoModelForAudioTokenization,
    AutoModelForPreTraining,
)

from .configuration_hear import HEARConfig, HEARQuantizerConfig
from .feature_extraction_hear import HEARFeatureExtractor
from .masking_hear import share_mask
from .modeling_hear import (
    HEARForAudioClassification,
    HEARForAudioFrameClassification,
    HEARForPreTraining,
    HEARModel,
    HEARPreTrainedModel,
)
from .modeling_hear_quantizer import (
    HEARQuantizer,
    HEARQuantizerForPreTraining,
    HEARQuantizerPreTrainedModel,
)
from .outputs_hear import (
    HEARForPreTrainingOutput,
    HEARFrameClassifierOutput,
    HEARModelOutput,
    HEARQuantizerForPreTrainingOutput,
    HEARQuantizerOutput,
)
from .streaming import HEARStream, HEARStreamResult

__version__ = "0.1.0.dev0"

AutoConfig.register("hear", HEARConfig)
AutoFeatureExtractor.register(HEARConfig, HEARFeatureExtractor)
AutoModel.register(HEARConfig, HEARModel)
AutoModelForAudioClassification.register(HEARConfig, HEARForAudioClassification)
AutoModelForAudioFrameClassification.register(HEARConfig, HEARForAudioFrameClassification)
AutoModelForPreTraining.register(HEARConfig, HEARForPreTraining)

AutoConfig.register("hear_quantizer", HEARQuantizerConfig)
AutoFeatureExtractor.register(HEARQuantizerConfig, HEARFeatureExtractor)
AutoModel.register(HEARQuantizerConfig, HEARQuantizer)
AutoModelForAudioTokenization.register(HEARQuantizerConfig, HEARQuantizer)
AutoModelForPreTraining.register(HEARQuantizerConfig, HEARQuantizerForPreTraining)

# Saved folders carry the code, so that they load where this package is absent.
HEARConfig.register_for_auto_class()
HEARQuantizerConfig.register_for_auto_class()
HEARFeatureExtractor.register_for_auto_class()
HEARModel.register_for_auto_class("AutoModel")
HEARForAudioClassification.register_for_auto_class("AutoModelForAudioClassification")
HEARForAudioFrameClassification.register_for_auto_class("AutoModelForAudioFrameClassification")
HEARForPreTraining.register_for_auto_class("AutoModelForPreTraining")
HEARQuantizer.register_for_auto_class("AutoModel")
HEARQuantizerForPreTraining.register_for_auto_class("AutoModelForPreTraining")

__all__ = [
    "HEARConfig",
    "HEARFeatureExtractor",
    "HEARForAudioClassification",
    "HEARForAudioFrameClassification",
    "HEARForPreTraining",
    "HEARForPreTrainingOutput",
    "HEARFrameClassifierOutput",
    "HEARModel",
    "HEARModelOutput",
    "HEARPreTrainedModel",
    "HEARQuantizer",
    "HEARQuantizerConfig",
    "HEARQuantizerForPreTraining",
    "HEARQuantizerForPreTrainingOutput",
    "HEARQuantizerOutput",
    "HEARQuantizerPreTrainedModel",
    "HEARStream",
    "HEARStreamResult",
    "share_mask",
]
