"""Records of recovered functions: pytrees that can be called, saved and loaded.

    networks.TwoLayer(rows, bias, weights, slope, offset)   one hidden layer, and a linear part
    networks.Deep(weights, biases)                          dense layers with ReLU between them
    networks.Convolutional(kernels, shifts, head, shape)    convolutions and pools, then a Deep
    networks.load(path), networks.from_json(text)           what was saved, of any kind

`Network` is what `exact.recover` returns: either of the first two.  All have
`network(x)`, `gradient`, `sizes`, `save`, `to_json` and `to_flax` (`record`).
"""

from recon.networks.convolutional import Convolutional
from recon.networks.deep import Deep
from recon.networks.files import from_json, load
from recon.networks.two_layer import TwoLayer

__all__ = ["Convolutional", "Deep", "Network", "TwoLayer", "from_json", "load"]

Network = TwoLayer | Deep
