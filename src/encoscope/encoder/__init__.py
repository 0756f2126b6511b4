"""A frozen network as named layers of feature maps."""

from encoscope._torchvision import ensure_torchvision
from encoscope.encoder.cached import (
    choose_cache_dir,
    gives_kept_outputs,
    identify_encoder,
    is_same_network,
    record_trial,
)
from encoscope.encoder.convert import as_encoder
from encoscope.encoder.encoder import Encoder
from encoscope.encoder.layouts import TokenLayout
from encoscope.encoder.listing import list_layers
from encoscope.encoder.load import load
from encoscope.encoder.substitute import substitute_maps
from encoscope.encoder.types import CLASS_ORDERS, Activation, ClassOrder, LayerInfo, Observation
from encoscope.encoder.untrained_copy import untrained_copy

ensure_torchvision()  # networks of any source, the user's own too, may import torchvision

__all__ = [
    "CLASS_ORDERS",
    "Activation",
    "ClassOrder",
    "Encoder",
    "LayerInfo",
    "Observation",
    "TokenLayout",
    "as_encoder",
    "choose_cache_dir",
    "gives_kept_outputs",
    "identify_encoder",
    "is_same_network",
    "list_layers",
    "load",
    "record_trial",
    "substitute_maps",
    "untrained_copy",
]
