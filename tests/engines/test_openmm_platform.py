"""Platform and backend are paired by what works, whatever platforms this machine has."""

import os
import shutil
import subprocess

import openmm
import pytest
from toys import toy_model

from so3k_md.cli.doctor import openmm_findings
from so3k_md.engines.openmm import backend, create_system, platform, run
from so3k_md.engines.openmm.backend import best_platform, choose_backend
from so3k_md.engines.openmm.platform import DEFAULT, PlatformFact, best_for, default_for, unresolved
from so3k_md.errors import So3kError

FAULT = "undefined symbol: getPositions"
REFERENCE, CPU = PlatformFact("Reference", 1, True), PlatformFact("CPU", 10, True)
OPENCL = PlatformFact("OpenCL", 50, True, FAULT)
LEFT_OUT = OPENCL._replace(torch=False)  # openmm imported before torch: the library was not loaded
CUDA = PlatformFact("CUDA", 100, True)


@pytest.fixture
def broken_default(monkeypatch):
    """OpenMM's default platform ends the process at a TorchForce."""
    speeds = [platform.getSpeed() for platform in map(openmm.Platform.getPlatform, (0, 1))]
    facts = [PlatformFact("Reference", speeds[0], True), PlatformFact("CPU", speeds[1], True, FAULT)]
    monkeypatch.delenv(DEFAULT, raising=False)
    for module in (backend, run):
        monkeypatch.setattr(module, "platform_facts", lambda: facts)
    yield facts
    os.environ.pop(DEFAULT, None)


@pytest.mark.parametrize(
    ("facts", "torchforce", "named", "default", "best"),
    [
        ([REFERENCE, CPU], True, None, "CPU", "CPU"),
        ([REFERENCE, CPU, OPENCL], True, None, "OpenCL", "CPU"),
        ([REFERENCE, CPU, OPENCL], False, None, "OpenCL", "CPU"),
        ([REFERENCE, CPU, LEFT_OUT], True, None, "OpenCL", "CPU"),
        ([REFERENCE, CPU, OPENCL], True, "OpenCL", "OpenCL", "CPU"),
        ([REFERENCE, CPU, OPENCL], False, "OpenCL", "OpenCL", "OpenCL"),
        ([REFERENCE, CPU, OPENCL], True, "Reference", "Reference", "Reference"),
        ([REFERENCE, CPU, OPENCL, CUDA], True, None, "CUDA", "CUDA"),
        ([REFERENCE, CPU, OPENCL], True, "Metal", None, None),
        ([REFERENCE, PlatformFact("HIP", 99, False)], True, None, "Reference", "Reference"),
    ],
)
def test_platform_is_the_fastest_that_works(facts, torchforce, named, default, best):
    found = default_for(facts, torchforce, named), best_for(facts, torchforce, named)
    assert tuple(fact and fact.name for fact in found) == (default, best)


def test_auto_is_a_pythonforce_where_the_default_ends_the_process(broken_default):
    chosen = choose_backend()
    assert chosen.name == "pythonforce"
    assert f"platform CPU ({FAULT})" in chosen.reason
    assert "choose platform Reference" in chosen.reason
    assert "openmm[cuda" in chosen.reason
    os.environ[DEFAULT] = "Reference"
    assert choose_backend().name == "torchforce"


def test_a_torchforce_leads_openmm_to_another_platform(broken_default, caplog):
    made = create_system(["O"], toy_model(), backend="torchforce")
    assert made.backend.name == "torchforce"
    assert made.platform.getName() == "Reference"
    context = openmm.Context(made.system, openmm.VerletIntegrator(0.001))
    assert context.getPlatform().getName() == "Reference"
    assert "is set to Reference in this process" in caplog.text


def test_a_pythonforce_leaves_the_choice_to_openmm(broken_default):
    assert create_system(["O"], toy_model()).backend.name == "pythonforce"
    assert DEFAULT not in os.environ


def test_runs_take_a_platform_that_works(broken_default, monkeypatch):
    system = create_system(["O"], toy_model(), backend="torchforce").system
    monkeypatch.delenv(DEFAULT)
    assert run.platform_of(None, system).getName() == "Reference"
    with pytest.raises(So3kError, match="ends the process on platform CPU .* choose another"):
        run.platform_of("CPU", system)
    with pytest.raises(So3kError, match="no platform Metal here: choose one of Reference, CPU"):
        run.platform_of("Metal", system)


def test_unknown_default_platform_is_refused(monkeypatch):
    monkeypatch.setenv(DEFAULT, "Metal")
    with pytest.raises(So3kError, match=f"{DEFAULT} = Metal"):
        best_platform("pythonforce")


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_a_library_without_a_symbol_is_found_though_it_is_loaded(tmp_path):
    sound, broken = tmp_path / "sound.so", tmp_path / "broken.so"
    for library, body in ((sound, "return 1;"), (broken, "int nowhere(void); return nowhere();")):
        source = library.with_suffix(".c")
        source.write_text(f"int call(void) {{ {body} }}")
        subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
        platform.ctypes.CDLL(str(library), mode=os.RTLD_LAZY)
    assert unresolved(sound) is None
    assert "nowhere" in str(unresolved(broken))
    (tmp_path / "text.so").write_text("no library")
    assert unresolved(tmp_path / "text.so") is None


def test_doctor_says_on_which_platform_the_process_ended():
    said = (
        '["platforms", "CPU, OpenCL", null]\n["TorchForce on CPU", "ends the process", "another"]\n'
        'WARNING: OpenCL\n["TorchForce on CPU", "works", null]\n'
        '["TorchForce on OpenCL", "ends the process", "x"]\n'
    )
    found = {f.name: (f.value, f.remedy) for f in openmm_findings(said, "symbol lookup error\n", 127)}
    assert found["TorchForce on CPU"] == ("works", None)
    assert found["TorchForce on OpenCL"] == ("ends the process", "x")
    assert found["probe"][0] == "symbol lookup error"
