"""Fine-tuning and pretraining with `Trainer`: arguments, models, trainers and the reports they leave."""

from ..extras import require

require(
    __name__, "train", "accelerate", "datasets", "evaluate", "jinja2", "matplotlib", "sklearn", "soundfile", "soxr"
)
