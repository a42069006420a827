"""Stress, groups, charges and fragments: read for what they are, and written again."""

from types import SimpleNamespace

import ase.io
import numpy as np
import pytest
from ase import Atoms
from test_frames import WATER, block, write_npz, write_xyz

from so3k_md.data import read_frames
from so3k_md.data.write import write_extxyz
from so3k_md.structure.charges import resolve_charge_state

so3lr_like = SimpleNamespace(has_charge_state=True, singlets_only=True)


@pytest.mark.parametrize("wanted", ["stress", "virial"])
def test_a_stress_key_is_taken_for_what_it_is(tmp_path, wanted):
    arrays = {"stress": np.full((3, 6), 1.0), "virial": np.full((3, 6), -420.0)}
    path = write_npz(tmp_path, cell=np.diag([3.0, 4.0, 5.0]), **arrays)
    expected = {"stress": 1.0, "virial": 7.0}[wanted]
    assert read_frames(path, stress_key=wanted)[0].stress[0, 0] == pytest.approx(expected)


def test_groups_are_read_and_written(tmp_path):
    assert read_frames(write_npz(tmp_path))[0].group is None
    for given in (np.array([4, 4, -1]), np.tile([4, 4, -1], (3, 1))):
        frames = read_frames(write_npz(tmp_path, group=given))
        assert [frame.group.tolist() for frame in frames] == [[4, 4, -1]] * 3
    padded = read_frames(
        write_npz(tmp_path, z=np.array([[8, 1, 1], [8, 1, 0], [2, 0, 0]]), group=np.array([7, 7, 9]))
    )
    assert [frame.group.tolist() for frame in padded] == [[7, 7, 9], [7, 7], [7]]
    write_extxyz(tmp_path / "b.xyz", [(frame, {}, {"forces": frame.forces}) for frame in frames])
    again = read_frames(tmp_path / "b.xyz")
    assert [frame.group.tolist() for frame in again] == [[4, 4, -1]] * 3
    assert (again[1].forces == frames[1].forces).all()
    comment = "Properties=species:S:1:pos:R:3:group:S:1 group=per_frame"
    words = read_frames(write_xyz(tmp_path, block(comment, ["O 0 0 0 a", "H 1 0 0 a", "H 0 1 0 b"])))
    assert words[0].group.tolist() == ["a", "a", "b"], "refused where a model has use for it"
    write_extxyz(tmp_path / "c.xyz", [(words[0], {}, {})])
    assert read_frames(tmp_path / "c.xyz")[0].group is None


@pytest.mark.parametrize("charges", [[-1.0, 1.0], {4: -1.0, 9: 1.0}])
def test_charges_and_fragments_are_read_and_written(tmp_path, charges):
    atoms = Atoms("OHH", WATER, info={"charge": 0, "spin": 0.0, "fragment_charges": charges})
    atoms.arrays["fragment"] = np.array([4, 4, 9])
    ase.io.write(tmp_path / "a.xyz", atoms)
    frame = read_frames(tmp_path / "a.xyz")[0]
    write_extxyz(tmp_path / "b.xyz", [(frame, {}, {})])
    for again in (frame, read_frames(tmp_path / "b.xyz")[0]):
        charge_state = resolve_charge_state(so3lr_like, again.numbers, again.charge_state, "here")
        assert charge_state.fragment.tolist() == [0, 0, 1]
        assert charge_state.fragment_charge.tolist() == [-1.0, 1.0]
    assert again.charge_state.charge == 0.0
