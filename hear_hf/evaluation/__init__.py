"""Hidden states of frozen encoders, linear probes on them, and metrics of classification."""

from ..extras import require

require(__name__, "evaluation", "datasets", "evaluate", "matplotlib", "sklearn", "soundfile", "soxr")
