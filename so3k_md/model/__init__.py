"""The model: its parts, the derivatives of its energy, and forces."""

from so3k_md.model.so3krates import So3krates
from so3k_md.model.weights import set_dtype, still_copy, weights_hash
from so3k_md.model_config import PRESETS, ModelConfig
from so3k_md.needs import FORMAT_VERSION

__all__ = ["FORMAT_VERSION", "PRESETS", "ModelConfig", "So3krates", "set_dtype", "still_copy", "weights_hash"]
