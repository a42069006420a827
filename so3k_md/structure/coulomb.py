"""Checks the form of the Coulomb energy, and the structures for which it is defined."""

import numpy as np
from numpy.typing import ArrayLike

from so3k_md.errors import So3kError
from so3k_md.graph import COULOMB, TAPER
from so3k_md.needs import Needs


def check_coulomb(coulomb: str, cutoff_lr: float) -> None:
    """Refuse an unknown form of the Coulomb energy, or an impossible cutoff of long-range pairs.

    Args:
        coulomb: one of COULOMB.
        cutoff_lr: Å.

    Raises:
        So3kError: see above.
    """
    if coulomb not in COULOMB:
        raise So3kError(f"coulomb = {coulomb!r} is unknown: choose one of {', '.join(COULOMB)}")
    if not (TAPER < cutoff_lr < float("inf")):
        raise So3kError(f"cutoff_lr = {cutoff_lr} Å is impossible: give a length above {TAPER:g} Å")


def check_periodicity(needs: Needs, pbc: ArrayLike, coulomb: str, where: str) -> None:
    """Refuse structures with one or two periodic axes if the Coulomb energy is a lattice sum.

    Args:
        needs: of the model.
        pbc: whether each axis is periodic.
        coulomb: one of COULOMB.
        where: for messages.

    Raises:
        So3kError: see above.
    """
    periodic = np.asarray(pbc)
    if needs.has_long_range and coulomb == "kspace" and periodic.any() and not periodic.all():
        raise So3kError(
            f"{where}: is periodic along some axes only, which coulomb = kspace does not support: choose "
            "shifted+self"
        )
