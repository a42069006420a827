"""Of which parts a model is made: the plain ones here, compiled ones in `kernels.parts`."""

from collections.abc import Mapping
from typing import NamedTuple

from so3k_md.nn.efa_layer import EfaLayer
from so3k_md.nn.geometry import Geometry
from so3k_md.nn.layer import Layer
from so3k_md.nn.sphc_layer import SphcLayer
from so3k_md.physics.long_range import LongPairs


class Parts(NamedTuple):
    """The classes of those parts that may be compiled, with the names and weights of the plain ones."""

    form: str  # name of the set
    geometry: type[Geometry]
    layers: Mapping[str, type[Layer]]  # by the kind of non-local attention
    long_pairs: type[LongPairs]


PLAIN = Parts("plain", Geometry, {"none": Layer, "sphc": SphcLayer, "efa": EfaLayer}, LongPairs)
