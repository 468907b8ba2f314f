"""Audio as data sets: decoding, labelled and unlabelled clips, augmentation, and spoken digits to try things on."""

from ..extras import require

require(__name__, "data", "datasets", "soundfile", "soxr")
