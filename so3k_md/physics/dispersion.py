"""Dispersion between quantum Drude oscillators, from polarizabilities scaled by Hirshfeld volumes.

Atomic units, except in `pair_kernel`. With α_i = α⁰_i h_i and C6_i = C6⁰_i h_i² the mixing rule
2 C6_i C6_j α_i α_j / (α_i² C6_j + α_j² C6_i) is 2 α_i α_j / (v_i + v_j) with v = α⁰² / C6⁰: bilinear in h,
like the Coulomb energy in the charges. Source: Khabibrakhmanov, Fedorov & Tkatchenko, JCTC 2023
(10.1021/acs.jctc.3c00797); free atoms: Tkatchenko & Scheffler, PRL 102, 073005 (2009) and later additions.
"""

import torch
from torch import Tensor, nn

from so3k_md.physics.switching import switch_with_derivative

BOHR = 0.5291772105638411  # Å
HARTREE = 27.211386245988  # eV

# α⁰ and C6⁰ of the free atoms from H to No, a.u.
POLARIZABILITY = """
4.5 1.38 164.2 38 21 12 7.4 5.4 3.8 2.67 162.7 71 60 37 25 19.6 15 11.1 292.9 160 120 98 84 78 63 56 50
48 42 40 60 41 29 25 20 16.8 319.2 199 126.74 119.97 101.6 88.42 80.08 65.89 56.1 23.68 50.6 39.7 70.22
55.95 43.67 37.65 35 27.3 399.9 275 213.7 204.7 215.8 208.4 200.2 192.1 184.2 158.3 169.5 164.64 156.3
150.2 144.3 138.9 137.2 99.52 82.53 71.04 63.04 55.06 42.51 39.68 36.5 33.9 69.92 61.8 49.02 45.01 38.93
33.54 317.8 246.2 203.3 217 154.4 127.8 150.5 132.2 131.2 143.6 125.3 121.5 117.5 113.4 109.4 105.4
"""
C6 = """
6.5 1.46 1387 214 99.5 46.6 24.2 15.6 9.52 6.38 1556 627 528 305 185 134 94.6 64.3 3897 2221 1383 1044
832 602 552 482 408 373 253 284 498 354 246 210 162 129.6 4691 3170 1968.58 1677.91 1263.61 1028.73
1390.87 609.75 469 157.5 339 452 707.05 587.42 459.32 396 385 285.9 6846 5727 3884.5 3708.33 3911.84
3908.75 3847.68 3708.69 3511.71 2781.53 3124.41 2984.29 2839.95 2724.12 2576.78 2387.53 2371.8 1274.8
1019.92 847.93 710.2 596.67 359.1 347.1 298 392 717.44 697 571 530.92 457.53 390.63 4224.44 4851.32
3604.41 4047.54 2876.77 2375.89 3102.12 2820.47 2794 3150.95 2756 2702.57 2626.59 2548.62 2468.69 2386.8
"""


class FreeAtoms(nn.Module):
    """α⁰ and v = α⁰² / C6⁰ of free atoms, a.u."""

    alpha: Tensor
    v: Tensor

    def __init__(self) -> None:
        super().__init__()
        # atomic number 0 is no element, and the heaviest elements have no entry
        alpha, c6 = (
            torch.tensor(
                [float("nan"), *map(float, table.split()), *[float("nan")] * 16], dtype=torch.float64
            )
            for table in (POLARIZABILITY, C6)
        )
        self.register_buffer("alpha", alpha)
        self.register_buffer("v", alpha * alpha / c6)

    def forward(self, species: Tensor, ratios: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """α = α⁰ h, α⁰ and v of atoms, (rows,), in the dtype of the ratios h.

        Args:
            species: atomic numbers, (rows,) int64.
            ratios: h, (rows,).
        """
        free = self.alpha.index_select(0, species).to(ratios.dtype)
        return free * ratios, free, self.v.index_select(0, species).to(ratios.dtype)


def pair_kernel(
    r: Tensor,
    alpha_i: Tensor,
    alpha_j: Tensor,
    v: Tensor,
    cutoff: float,
    taper: float,
    bohr: float = BOHR,
    hartree: float = HARTREE,
) -> tuple[Tensor, Tensor, Tensor]:
    """e of E = α_i α_j e, e = −2/(v_i + v_j) F(R, a) w(r; c − b, c), a = (α_i + α_j)/2, with its derivatives.

    Args:
        r: distances, (pairs,), Å.
        alpha_i: polarizabilities of one atom, (pairs,), a.u.
        alpha_j: of the other, (pairs,), a.u.
        v: v_i + v_j, (pairs,), a.u.
        cutoff: c, Å.
        taper: b, Å.
        bohr: Å.
        hartree: eV.

    Returns:
        e (pairs,) eV; ∂E/∂α of either atom through the mean a, (pairs,) eV; ∂E/∂r (pairs,) eV/Å.
    """
    w, dw = switch_with_derivative(r, cutoff - taper, cutoff)
    total = alpha_i + alpha_j
    f, by_r2, by_a = damped_sum((1.0 / bohr**2) * (r * r), 0.5 * total)
    c, product = (-2.0 * hartree) / v, alpha_i * alpha_j
    tapered = c * w
    by_r = c * dw * f + 2.0 * (tapered * by_r2) / r
    return tapered * f, product * tapered * by_a / total, product * by_r


def damped_sum(r2: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """F(R, a) = 1/(R⁶ + p⁶) + C8/C6 / (R⁸ + p⁸) + C10/C6 / (R¹⁰ + p¹⁰), a.u., with R² ∂F/∂(R²) and a ∂F/∂a.

    p = 1.2 · 2 · 2.54 a^(1/7), C8/C6 = 10 s² and C10/C6 = 245/2 s⁴ with the width s. Evaluated as
    p⁻⁶ Σ κ_n / (1 + t^n), n = 3, 4, 5, of t = R²/p², κ_3 = 1, κ_4 = 10 (s/p)², κ_5 = 1.225 κ_4².

    Args:
        r2: squared distances R², (pairs,).
        alpha: mean polarizability a of two atoms, (pairs,).
    """
    root = torch.pow(alpha, -1.0 / 7.0)
    ratio, by_ratio = width(root)
    k4, inverse = 10.0 * (ratio * ratio), (1.0 / 6.096**2) * (root * root)  # inverse = p⁻²
    t = r2 * inverse
    t2 = t * t
    t3, t4 = t2 * t, t2 * t2
    t5, p6 = t4 * t, inverse * inverse * inverse
    u3, u4, u5 = torch.reciprocal(1.0 + t3), torch.reciprocal(1.0 + t4), torch.reciprocal(1.0 + t5)
    g4, k4_u5 = k4 * u4, k4 * u5
    g5 = 1.225 * (k4 * k4_u5)
    total = u3 + g4 + g5
    by_t = 3.0 * (u3 * u3 * t3) + 4.0 * (g4 * u4 * t4) + 5.0 * (g5 * u5 * t5)  # −t ∂/∂t
    by_k = (20.0 * (ratio * by_ratio)) * (u4 + 2.45 * k4_u5)
    return p6 * total, -(p6 * by_t), (p6 * (1.0 / 7.0)) * (by_k + 2.0 * by_t - 6.0 * total)


def width(root: Tensor) -> tuple[Tensor, Tensor]:
    """s/p of the width s = b_0 + b_1 R + b_2 R² + b_3 R³, R = fsc^(−4/21) x, and x ∂(s/p)/∂x, x = a^(1/7).

    R is a van der Waals radius, fsc the fine structure constant.

    Args:
        root: 1/x, (pairs,).
    """
    radius = 0.0072973525693 ** (-4.0 / 21.0)
    scale = 1.0 / 6.096  # p = 6.096 x
    b0, b1, b2 = -0.00433008 * scale, 0.24428889 * scale * radius, 0.04125273 * scale * radius**2
    b3 = -0.00078893 * scale * radius**3
    x = torch.reciprocal(root)
    cubic, lowest = b3 * x, b0 * root
    return (cubic + b2) * x + (lowest + b1), (2.0 * cubic + b2) * x - lowest
