"""What a checkpoint knows: hidden states of frozen encoders, probes on them, and metrics."""

from ..extras import require

require(__name__, "evaluation", "datasets", "evaluate", "matplotlib", "sklearn", "soundfile", "soxr")
