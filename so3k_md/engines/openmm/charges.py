"""Determines total charge, spin and fragments of an OpenMM system, also from molecules and residue names."""

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray
from openmm import app

from so3k_md.data.structures import given_charge_state
from so3k_md.engines.openmm.groups import bonds_among
from so3k_md.errors import So3kError, So3kWarning
from so3k_md.needs import Needs
from so3k_md.structure.bonds import trees
from so3k_md.structure.charges import (
    UNUSED,
    ChargeState,
    GivenChargeState,
    by_number,
    combined,
    refuse_unknown,
    resolve_charge_state,
    says_something,
)

Ints = NDArray[np.int64]

WHERE = "the system"


def charge_state_of(
    needs: Needs,
    topology: app.Topology,
    rows: Sequence[int],
    numbers: Sequence[int],
    given: GivenChargeState,
) -> ChargeState:
    """Total charge, spin and fragments of the atoms that a model describes.

    Args:
        needs: of the model.
        topology: its bonds and residues, for fragments that are molecules.
        rows: the atoms described (atoms,).
        numbers: their atomic numbers (atoms,).
        given: charge, spin, `fragment` (None, molecules or a number for each of these atoms) and its charges.

    Raises:
        So3kError: impossible values, or values that the model does not use.
    """
    refuse_unknown(needs, given, WHERE)
    if needs.has_charge_state and isinstance(given.fragment, str):
        given = by_molecules(topology, rows, numbers, given)
    return resolve_charge_state(needs, numbers, given, WHERE)


def by_molecules(
    topology: app.Topology, rows: Sequence[int], numbers: Sequence[int], given: GivenChargeState
) -> GivenChargeState:
    """One fragment for each bonded molecule. Its charge is the sum of the charges given for its residues.

    Raises:
        So3kError: a text other than molecules, no bonds, a name that no residue has, or a closed shell with
            an odd number of electrons.
    """
    if given.fragment != "molecules":
        raise So3kError(
            f"{WHERE}: fragments = {given.fragment!r} is unknown: give molecules, or a number for each atom"
        )
    bonds = bonds_among(topology, rows)
    if not len(bonds) and len(rows) > 1:
        raise So3kError(
            f"{WHERE}: the topology has no bonds, which define the molecules: add them (CONECT records, or "
            "topology.createStandardBonds()), or give a fragment number for each atom"
        )
    molecule = trees(len(rows), bonds)[1]
    charges = given.fragment_charges
    if charges is None or isinstance(charges, Mapping) and all(isinstance(name, str) for name in charges):
        charges = charges_by_residue(topology, rows, molecule, charges or {})
    if not given.spin and np.shape(charges) == (molecule.max() + 1,):
        electrons = np.bincount(molecule, numbers) - np.asarray(charges, dtype=float)
        if (odd := np.flatnonzero(electrons % 2 == 1)).size:
            first = int(np.flatnonzero(molecule == odd[0])[0])
            residue = residues(topology)[rows[first]]
            raise So3kError(
                f"{WHERE}: the molecule of atom {rows[first]} (residue {residue.name}) would have "
                f"{electrons[odd[0]]:g} electrons, one of them unpaired: give its charge in fragment_charges"
            )
    return given._replace(fragment=molecule, fragment_charges=charges)


def charges_by_residue(
    topology: app.Topology, rows: Sequence[int], molecule: Ints, charges: Mapping[str, float]
) -> list[float]:
    """The charge of each molecule: the sum over its residues, with 0 for names that are not given."""
    names, residue_of = {}, residues(topology)
    for row, number in zip(rows, molecule.tolist(), strict=True):
        names[number, residue_of[row].index] = residue_of[row].name
    if unknown := sorted(set(charges) - set(names.values())):
        known = ", ".join(sorted(set(names.values())))
        raise So3kError(f"{WHERE}: fragment_charges names {unknown[0]}, the residues are {known}: correct it")
    total = [0.0] * (int(molecule.max()) + 1)
    n_molecules = Counter(residue for _, residue in names)
    for (number, residue), name in names.items():
        if name in charges and n_molecules[residue] > 1:
            raise So3kError(
                f"{WHERE}: residue {name} lies in {n_molecules[residue]} molecules, so that its charge "
                "cannot be assigned: add the bonds of its atoms (CONECT records), or give a fragment number "
                "for each atom"
            )
        total[number] += charges.get(name, 0.0)
    return total


def residues(topology: app.Topology) -> list[app.topology.Residue]:
    """The residue of each atom, by its index."""
    return [atom.residue for atom in sorted(topology.atoms(), key=lambda atom: atom.index)]


def one_cluster(topology: app.Topology, rows: Sequence[int]) -> Ints:
    """One tree of the atoms described: along bonds, and from the first atom to the first of each molecule."""
    parent = trees(len(rows), bonds_among(topology, rows))[0]
    roots = parent == np.arange(len(rows))
    return np.where(roots, 0, parent)


def named_charge_state(atoms: Atoms, needs: Needs, options: dict[str, Any]) -> dict[str, Any]:
    """The options of `add_model`, completed by charge, spin and fragments of the structure.

    If the model describes a part of the structure, only the fragments of the structure are used.

    Raises:
        So3kError: an option and the structure contradict each other.
    """
    names = ("charge", "spin", "fragments", "fragment_charges")
    own = given_charge_state(atoms)
    if not needs.has_charge_state:
        if says_something(own):
            warnings.warn(UNUSED, So3kWarning, stacklevel=3)
        return options
    if options.get("atoms") is not None:
        own = part_of(own, options["atoms"])
    given = combined(GivenChargeState(*(options.get(name) for name in names)), own, WHERE)
    return options | dict(zip(names, given, strict=True))


def part_of(own: GivenChargeState, rows: Sequence[int]) -> GivenChargeState:
    """The fragments of some atoms of a structure, and the charges of these fragments."""
    _, _, fragment, charges = own
    if fragment is None or charges is None:
        return GivenChargeState()
    if not isinstance(charges, Mapping):
        charges = dict(zip(np.unique(fragment).tolist(), np.asarray(charges).tolist(), strict=False))
    # add_model refuses rows that do not exist
    chosen = np.take(fragment, rows, mode="clip")
    mine = {number: charge for number, charge in by_number(charges).items() if number in chosen}
    return GivenChargeState(fragment=chosen, fragment_charges=mine)


def describe_physics(
    needs: Needs, coulomb: str, cutoff_lr: float, charge_state: ChargeState, reach: str
) -> str:
    """One line on the charges of a system, and on the form of their energy.

    Args:
        needs: of a model with electrostatics.
        coulomb: one of COULOMB.
        cutoff_lr: Å.
        charge_state: of the system.
        reach: the set over which coulomb = kspace sums, as text.
    """
    form = f"kspace, over {reach}" if coulomb == "kspace" else f"{coulomb}, to {cutoff_lr:g} Å"
    n_fragments = len(charge_state.fragment_charge)
    fragments = "one fragment" if n_fragments == 1 else f"{n_fragments} fragments"
    if n_fragments > 1 and charge_state.fragment_charge.any():
        fragments += f" ({np.count_nonzero(charge_state.fragment_charge)} charged)"
    line = (
        f"coulomb: {form}; dispersion to {cutoff_lr:g} Å; "
        f"total charge {charge_state.charge:+g} e in {fragments}"
    )
    if needs.energy_shift:
        line += f"; energies do not contain the energy shift, {needs.energy_shift:g} eV per atom"
    return line
