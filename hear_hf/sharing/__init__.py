"""Publishing on the Hub: staging, checks, cards and uploads of models, demos and data sets."""

from ..extras import require

require(__name__, "sharing", "datasets", "evaluate", "jinja2", "matplotlib", "sklearn", "soundfile", "soxr")
