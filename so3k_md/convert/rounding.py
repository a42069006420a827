"""Rounds constants as so3krates-torch does, for exact comparisons with it."""

import json

import torch
from torch import nn

from so3k_md.checkpoint import metadata
from so3k_md.model import So3krates
from so3k_md.needs import with_needs
from so3k_md.nn.embedding import ChargeAndSpin
from so3k_md.nn.radial import BernsteinBasis
from so3k_md.nn.spherical import SquaredNorm
from so3k_md.physics.dispersion import FreeAtoms

SHARE_EPS = 1e-6  # so3krates-torch adds this to the sum of the affinities for the total charge


def round_like_peer(model: So3krates) -> So3krates:
    """Round, in place, the constants that so3krates-torch stores in float32, and record this in the model.

    Such a model runs with plain layers, because the compiled kernels contain exact constants.

    Args:
        model: as imported.
    """
    round_constants(model)
    rounded: So3krates = with_needs(model, metadata=json.dumps(metadata(model) | {"rounding": "peer"}))
    return rounded


def round_constants(module: nn.Module) -> None:
    """Round the constants of a part, in place."""
    for part in module.modules():
        if isinstance(part, SquaredNorm):
            part.weight.copy_(part.weight.float())
        elif isinstance(part, BernsteinBasis):
            part.ln_binomial.copy_(part.ln_binomial.float())
            part.gamma = float(torch.tensor(part.gamma, dtype=torch.float32))
        elif isinstance(part, FreeAtoms):
            c6 = part.alpha * part.alpha / part.v
            alpha = part.alpha.float().double()
            part.alpha.copy_(alpha)
            part.v.copy_(alpha * alpha / c6.float().double())
        elif isinstance(part, ChargeAndSpin):
            part.eps = SHARE_EPS
