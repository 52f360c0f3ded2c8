"""Records of recovered functions: pytrees that can be called, saved and loaded.

    networks.TwoLayer(rows, bias, weights, slope, offset)   one hidden layer, and a linear part
    networks.Deep(weights, biases)                          dense layers with ReLU between them
    networks.load(path), networks.from_json(text)           what was saved, of either kind

`Network` is any of them.  All have `network(x)`, `gradient`, `sizes`, `save`, `to_json` and
`to_flax` (`record`).
"""

from recon.networks.deep import Deep
from recon.networks.files import from_json, load
from recon.networks.two_layer import TwoLayer

__all__ = ["Deep", "Network", "TwoLayer", "from_json", "load"]

Network = TwoLayer | Deep
