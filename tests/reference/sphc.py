"""Attention over neighborhoods in SPHC space by loops over atoms, in numpy (Frank et al. 2022, Eq. 14).

Nothing of so3k_md is imported: the weights of a model come in as the arrays of its state_dict.
"""

import math

import numpy as np


def distance(chi_i, chi_j, eps):
    """‖χ_i − χ_j‖ over all degrees, smoothed at zero."""
    return math.sqrt(((chi_i - chi_j) ** 2).sum() + eps * eps) - eps


def cutoff(u, p):
    """1 − (p+1)(p+2)/2 u^p + p(p+2) u^(p+1) − p(p+1)/2 u^(p+2) below one."""
    if u >= 1:
        return 0.0
    return 1 - (p + 1) * (p + 2) / 2 * u**p + p * (p + 2) * u ** (p + 1) - p * (p + 1) / 2 * u ** (p + 2)


def neighborhoods(chi, group, kappa=1.0, p=6, eps=0.0, temperature=1.0):
    """u = n s / κ with s the softmax of +d/T over the others of a row's group, and φ_χ(u).

    Args:
        chi: (n, width).
        group: (n,), which atoms attend to each other.
        kappa: κ of χ_cut = κ / n, n the size of the group.
        p: order of the cutoff.
        eps: smoothing of the norm.
        temperature: T, 1 in the published form.

    Returns:
        u, infinite where there is no pair, and φ_χ, both (n, n).
    """
    atoms = range(len(chi))
    u, phi = np.full((len(chi), len(chi)), np.inf), np.zeros((len(chi), len(chi)))
    for i in atoms:
        others = [j for j in atoms if j != i and group[j] == group[i]]
        d = {j: distance(chi[i], chi[j], eps) for j in others}
        for j in others:
            s = 1 / sum(math.exp((d[k] - d[j]) / temperature) for k in others)
            u[i, j] = (len(others) + 1) * s / kappa
            phi[i, j] = cutoff(u[i, j], p)
    return u, phi


def silu(x):
    return x / (1 + np.exp(-x))


def mlp(weights, name, x):
    hidden = silu(x @ weights[f"{name}.hidden.weight"] + weights[f"{name}.hidden.bias"])
    return hidden @ weights[f"{name}.out.weight"] + weights[f"{name}.out.bias"]


def projection(weights, name, head, x):
    """q or k of one head from its chunk of the features."""
    matrix = weights[f"{name}.weight"][head]
    bias = weights.get(f"{name}.bias", np.zeros(len(matrix) * len(weights[f"{name}.weight"])))
    part = slice(head * len(matrix), (head + 1) * len(matrix))
    return x[part] @ matrix + bias[part]


def invariants(config, chi):
    parts = np.split(chi, np.cumsum([2 * l + 1 for l in config.degrees])[:-1])
    if config.chi_invariant == "norm":
        return np.array([distance(part, 0 * part, config.norm_eps) for part in parts])
    return np.array([(part**2).sum() / math.sqrt(len(part)) for part in parts])


def message(config, weights, x, chi, r, group, radial, harmonics):
    """Δχ_i^(l) = Σ_{j in the group} φ_χ(u_ij) α_ij^l Y^(l)(r̂_ij), α as in the local geometric attention.

    Its filter sees the radial basis damped by the cutoff function, hence MLP_rad(0) beyond the cutoff.

    Args:
        config: of the model; kappa, nonlocal_p, norm_eps, degrees, direction and so on are read.
        weights: arrays of one layer by their names in its state_dict.
        x: (n, F).
        chi: (n, width).
        r: positions (n, 3), Å.
        group: (n,).
        radial: distance (Å) to the damped radial basis (K,); called inside the cutoff only.
        harmonics: unit vector (3,) to Y (width,).
    """
    settings = config.kappa, config.nonlocal_p, config.norm_eps, config.temperature
    phi = neighborhoods(chi, group, *settings)[1]
    width = config.features // len(config.degrees)
    starts = np.cumsum([0, *(2 * l + 1 for l in config.degrees)])
    total = np.zeros_like(chi)
    for i, j in np.argwhere(phi > 0):
        to_neighbor = r[j] - r[i]
        length = np.linalg.norm(to_neighbor)
        unit = to_neighbor / length * (1 if config.direction == "to_neighbour" else -1)
        basis = radial(length) if length < config.cutoff else np.zeros(config.n_rbf)
        w = mlp(weights, "geometric_filter.radial", basis)
        w = w + mlp(weights, "geometric_filter.spherical", invariants(config, chi[i] - chi[j]))
        y = harmonics(unit)
        for head in range(len(config.degrees)):
            q = projection(weights, "geometric_attention.attention.query", head, x[i])
            k = projection(weights, "geometric_attention.attention.key", head, x[j])
            part, orders = slice(head * width, (head + 1) * width), slice(starts[head], starts[head + 1])
            scale = config.attention_scale or width**-0.5
            total[i, orders] += phi[i, j] * scale * (q * w[part] * k).sum() * y[orders]
    return total
