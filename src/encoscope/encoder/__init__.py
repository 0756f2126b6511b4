"""A frozen network as named layers of feature maps."""

from encoscope.encoder import _torchvision_ops
from encoscope.encoder.encoder import Encoder
from encoscope.encoder.load import load
from encoscope.encoder.types import Activation, LayerInfo

_torchvision_ops.ensure()

__all__ = ["Activation", "Encoder", "LayerInfo", "load"]
