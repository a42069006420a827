"""Euclidean fast attention as a plain sum over pairs, in numpy, with the kernels that its waves stand for.

Frank, Chmiela, Müller & Unke, arXiv:2412.08541. The weights come in as the arrays of a state_dict.
"""

import math
from itertools import product

import numpy as np
from reference.sphc import mlp


def sinc_kernel(n_frequencies, b_max, reach):
    """sin(ω r) / (ω r), ω = linspace(0, b_max) / reach: vectors (…, 3) to (…, n_frequencies)."""
    frequencies = np.linspace(0, b_max, n_frequencies) / reach

    def kernel(vectors):
        return np.sinc(np.linalg.norm(vectors, axis=-1)[..., None] * frequencies / np.pi)

    return kernel


def lattice_kernel(n_frequencies, k_max, cell):
    """(1/V) Σ_G a(|G|)² cos(G·r) over all reciprocal vectors: vectors (…, 3) to (…, n_frequencies).

    a_k is a bump at the k-th of n steps up to k_max, as wide as a step, damped by (1 + cos(π |G|/k_max)) / 2,
    and scaled so that the kernel of an infinite cell is 1 at r = 0.
    """
    step = k_max / n_frequencies

    def square(length, k):
        bump = math.exp(-0.5 * ((length - k * step) / step) ** 2)
        return (bump * (0.5 + 0.5 * math.cos(math.pi * length / k_max))) ** 2 if length < k_max else 0.0

    x, w = np.polynomial.legendre.leggauss(200)
    nodes, w = 0.5 * k_max * (x + 1), 0.5 * k_max * w
    at_zero = [
        sum(w * nodes**2 * [square(q, k) for q in nodes]) / (2 * math.pi**2) for k in range(n_frequencies)
    ]
    reciprocal = 2 * math.pi * np.linalg.inv(cell).T
    most = math.ceil(k_max * np.linalg.norm(cell, axis=1).max() / (2 * math.pi))
    waves = [np.array(n) @ reciprocal for n in product(range(-most, most + 1), repeat=3)]
    waves = [wave for wave in waves if np.linalg.norm(wave) < k_max]

    def kernel(vectors):
        total = np.zeros((*vectors.shape[:-1], n_frequencies))
        for wave in waves:
            a = [square(np.linalg.norm(wave), k) / at_zero[k] for k in range(n_frequencies)]
            total += np.cos(vectors @ wave)[..., None] * a
        return total / abs(np.linalg.det(cell))

    return kernel


def message(degrees, width, values, weights, x, chi, r, group, kernel):
    """Δx_i = MLP(Σ_j K_ij v_j), Δχ_i^(l) = b_l(x_i) Σ_j K_ij c_l(x_j) χ_j^(l), j over the group, i included.

    K_ij = Σ_d κ_d(r_ij) (q_d0 k_d0 + Σ_l q_dl k_dl χ_i^(l)·χ_j^(l)) / sqrt(D (1 + m)), m the width of χ.

    Args:
        degrees: L.
        width: D; two channels share a frequency.
        values: width of the invariant values.
        weights: arrays of the block by their names in its state_dict.
        x: (n, F).
        chi: (n, m).
        r: positions (n, 3), Å.
        group: (n,).
        kernel: vectors (…, 3) to the kernels (…, D / 2).
    """

    def linear(name, y):
        return y @ weights[f"{name}.weight"] + weights[f"{name}.bias"]

    n, m = chi.shape
    degree = np.repeat(np.arange(len(degrees)), [2 * l + 1 for l in degrees])
    kernels = np.repeat(kernel(r[None] - r[:, None]), 2, axis=-1)
    sums = np.zeros((n, values + m))
    for i, j in np.argwhere(group[:, None] == group[None]):
        q, k = (linear(name, y).reshape(-1, width) for name, y in (("query", x[i]), ("key", x[j])))
        inner = [1.0, *(chi[i, degree == l] @ chi[j, degree == l] for l in range(len(degrees)))]
        weight = sum(inner[l] * (kernels[i, j] * q[l] * k[l]).sum() for l in range(len(inner)))
        v = linear("value", x[j])
        v = np.concatenate([v[:values], v[values:][degree] * chi[j]])
        sums[i] += weight / math.sqrt(width * (1 + m)) * v
    return mlp(weights, "out", sums[:, :values]), linear("gate", x)[:, degree] * sums[:, values:]
