"""Reference energies are those of least squares, in float64 and also where compositions do not decide."""

import numpy as np
import pytest

from so3k_md.data import Frame, fit_statistics
from so3k_md.errors import So3kError

TRUE = {1: -13.6, 6: -1029.5, 8: -2041.8}


def frame(numbers, energy=None, forces=None):
    numbers = np.array(numbers)
    return Frame(
        numbers, np.zeros((len(numbers), 3)), None, np.zeros(3, bool), energy, forces, None, 0, "made"
    )


def test_finds_the_atoms_energies():
    molecules = [[8, 1, 1], [6, 1, 1, 1, 1], [6, 8, 8], [6, 8], [1, 1]]
    frames = [frame(z, sum(TRUE[k] for k in z)) for z in molecules]
    shift = fit_statistics(frames).shift
    assert {z: pytest.approx(e, rel=1e-12) for z, e in TRUE.items()} == shift


@pytest.mark.parametrize("reference", ["least_squares", "mean"])
def test_one_molecule_alone_leaves_the_mean_at_zero(reference):
    rng = np.random.default_rng(5)
    z = [6, 6, 8, 1, 1, 1, 1, 1, 1]
    frames = [frame(z, -4209.5 + 0.1 * rng.normal(), rng.normal(size=(9, 3))) for _ in range(50)]
    statistics = fit_statistics(frames, reference)
    rest = [f.energy - sum(statistics.shift[k] for k in z) for f in frames]
    assert abs(np.mean(rest)) < 1e-11
    assert np.std(rest) < 0.2
    forces = np.concatenate([f.forces.ravel() for f in frames])
    assert statistics.scale == pytest.approx(forces.std(), rel=1e-12)
    values = list(statistics.shift.values())
    if reference == "mean":
        assert len(set(values)) == 1
    else:  # smallest norm: proportional to the counts 6, 2, 1
        np.testing.assert_allclose(np.array(values) / values[-1], [6, 2, 1], rtol=1e-10)


def test_large_energies_keep_their_digits():
    rng = np.random.default_rng(6)
    frames = [
        frame([79] * n + [12] * m, -5e5 * n - 5.4e3 * m + 1e-3 * rng.normal())
        for n in (1, 2, 3)
        for m in (5, 8)
    ]
    shift = fit_statistics(frames).shift
    residual = [
        f.energy - (f.numbers == 79).sum() * shift[79] - (f.numbers == 12).sum() * shift[12] for f in frames
    ]
    assert abs(np.mean(residual)) < 2e-3
    assert np.abs(residual).max() < 1e-2


def test_without_labels():
    statistics = fit_statistics([frame([1, 8])], "none")
    assert statistics.shift == {1: 0.0, 8: 0.0}
    assert statistics.scale == 1.0
    with pytest.raises(So3kError, match="no training frame has an energy"):
        fit_statistics([frame([1, 8])])
    with pytest.raises(So3kError, match="unknown energy reference 'median'"):
        fit_statistics([frame([1, 8], 1.0)], "median")
