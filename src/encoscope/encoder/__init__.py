"""A frozen network as named layers of feature maps."""

from encoscope._torchvision import ensure_torchvision
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
    "list_layers",
    "load",
    "substitute_maps",
    "untrained_copy",
]
