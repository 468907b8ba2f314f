"""Models of Transformers that the published teachers become. Saved folders carry this code."""

from .configuration_efficientat import EfficientATConfig
from .configuration_speech_embedding import SpeechEmbeddingConfig
from .feature_extraction_efficientat import EfficientATFeatureExtractor
from .feature_extraction_speech_embedding import SpeechEmbeddingFeatureExtractor
from .modeling_efficientat import EfficientATForAudioClassification, EfficientATModel
from .modeling_speech_embedding import SpeechEmbeddingModel

EfficientATConfig.register_for_auto_class()
EfficientATFeatureExtractor.register_for_auto_class()
EfficientATModel.register_for_auto_class("AutoModel")
EfficientATForAudioClassification.register_for_auto_class("AutoModelForAudioClassification")
SpeechEmbeddingConfig.register_for_auto_class()
SpeechEmbeddingFeatureExtractor.register_for_auto_class()
SpeechEmbeddingModel.register_for_auto_class("AutoModel")

__all__ = [
    "EfficientATConfig",
    "EfficientATFeatureExtractor",
    "EfficientATForAudioClassification",
    "EfficientATModel",
    "SpeechEmbeddingConfig",
    "SpeechEmbeddingFeatureExtractor",
    "SpeechEmbeddingModel",
]
