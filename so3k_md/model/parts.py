"""The classes of which a model is built: the plain ones here, the compiled ones in `kernels.parts`."""

from collections.abc import Mapping
from typing import NamedTuple

from so3k_md.model.energies import Energies
from so3k_md.model.long_range import LongRangePhysics
from so3k_md.nn.efa_layer import EfaLayer
from so3k_md.nn.geometry import Geometry
from so3k_md.nn.layer import Layer
from so3k_md.nn.sphc_layer import SphcLayer
from so3k_md.physics.kspace import LatticeSum
from so3k_md.physics.long_range import LongPairs


class Parts(NamedTuple):
    """Classes of the parts that can be compiled. Compiled ones have the names and weights of plain ones."""

    form: str  # name of the set
    geometry: type[Geometry]
    layers: Mapping[str, type[Layer]]  # kind of non-local attention -> class
    energies: type[Energies]
    physics: type[LongRangePhysics]
    long_pairs: type[LongPairs]
    lattice_sum: type[LatticeSum]


PLAIN = Parts(
    "plain",
    Geometry,
    {"none": Layer, "sphc": SphcLayer, "efa": EfaLayer},
    Energies,
    LongRangePhysics,
    LongPairs,
    LatticeSum,
)
