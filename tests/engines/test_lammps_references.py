"""LAMMPS warns of energies that cannot be compared, by the rule of ASE, OpenMM and eval."""

import json
import re
import warnings

import pytest
from lammps_runs import lammps_frame, run, setup, write_data
from toys import save_toy, structure, toy_model

from so3k_md.data.references import comparable, warn_incomparable
from so3k_md.errors import So3kWarning
from so3k_md.model import still_copy
from so3k_md.needs import with_needs

ETHANOL_AND_WATER = [[6, 2, 1], [2, 0, 1]]
REFERENCES = {
    "silent": None,
    "isolated": {"source": "isolated atoms", "elements": [1], "compositions": [[2]]},
    "given": {"source": "given", "elements": [1, 6, 8], "compositions": [[4, 1, 0]]},
    "same": {"source": "fit", "elements": [1, 6, 8], "compositions": ETHANOL_AND_WATER},
    "combined": {"source": "mean", "elements": [1, 6, 8], "compositions": [[8, 2, 2], [4, 2, 0]]},
    "dependent": {"source": "fit", "elements": [8, 6, 1], "compositions": [[1, 0, 2], [2, 0, 4], [0, 2, 4]]},
    "other": {"source": "fit", "elements": [1, 6, 8], "compositions": [[4, 1, 0], [2, 0, 1]]},
    "element": {"source": "fit", "elements": [1, 6], "compositions": [[6, 2], [4, 1]]},
    "empty": {"source": "none", "elements": [1, 6, 8], "compositions": []},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The toy model with each of REFERENCES, and ethanol."""
    folder = tmp_path_factory.mktemp("references")
    for name, references in REFERENCES.items():
        model = still_copy(toy_model())
        facts = {"name": name, "config": {"references": 1}}
        with_needs(model, metadata=json.dumps(facts | ({"references": references} if references else {})))
        save_toy(folder / f"{name}.pt", model)
    write_data(folder / "data.ethanol", lammps_frame(structure("open")))
    return folder


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("name", REFERENCES)
def test_compositions_are_compared_as_in_python(folder, name, ranks):
    atoms = structure("open")
    facts = {"references": REFERENCES[name]}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_incomparable(atoms.numbers, facts)
    assert bool(caught) != comparable(atoms.numbers, facts)
    script = setup(atoms, "data.ethanol", f"{name}.pt") + "run 0\nrun 0\n"
    output = run(folder, script, ranks)
    found = re.findall(r"^WARNING: so3k: the energy of .*?;", output, re.M)
    assert len(found) == len(caught)  # once, whatever the ranks and runs
    if caught:
        assert caught[0].category is So3kWarning
        said = str(caught[0].message).split(". Compare")[0].replace("this model", f"model {name}")
        assert found[0].startswith(f"WARNING: so3k: {said}. Compare")
