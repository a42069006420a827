"""The configuration that determines the shape of a model, and the published configurations."""

import json
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from so3k_md.config import to_mapping
from so3k_md.errors import So3kError
from so3k_md.needs import FORMAT_VERSION, Needs
from so3k_md.nn.interaction import INTERACTIONS
from so3k_md.nn.radial import CUTOFFS, RADIAL_BASES
from so3k_md.nn.spherical import CHI_INVARIANTS, MAX_DEGREE
from so3k_md.nn.waves import GRIDS, WAVES

NONLOCAL_KINDS = ("none", "sphc", "efa")


@dataclass(frozen=True)
class ModelConfig:
    """Everything that determines the shape of a model; the defaults are the 2022 model."""

    # key -> the value that is accepted in files of former versions, and the remedy for any other
    RETIRED: ClassVar = {
        "rounding": (
            "exact",
            "import the model again; to compare it with its own program, with so3k-md import --rounding peer",
        )
    }

    features: int = field(default=132, metadata={"doc": "F, invariant features of an atom"})
    layers: int = field(default=6, metadata={"doc": "number of layers"})
    heads: int = field(default=4, metadata={"doc": "h, heads of the feature attention; divides F"})
    degrees: tuple[int, ...] = field(default=(1, 2, 3), metadata={"doc": "L, degrees of the SPHCs, 0 to 4"})
    cutoff: float = field(default=5.0, metadata={"doc": "r_cut, Å"})
    cutoff_function: str = field(default="cosine", metadata={"doc": "cosine, physnet or polynomial"})
    cutoff_p: int = field(default=6, metadata={"doc": "order p of the polynomial cutoff"})
    radial_basis: str = field(default="physnet", metadata={"doc": "physnet, gaussian or bernstein"})
    n_rbf: int = field(default=32, metadata={"doc": "K, radial functions"})
    damp_rbf: bool = field(default=True, metadata={"doc": "multiply the radial basis by the cutoff function"})
    radial_hidden: int = field(default=128, metadata={"doc": "hidden width of the radial filter"})
    chi_hidden: int = field(default=32, metadata={"doc": "hidden width of the spherical filter"})
    direction: str = field(
        default="to_centre", metadata={"doc": "Y of r_i - r_j (to_centre) or r_j - r_i (to_neighbour)"}
    )
    chi_start: str = field(
        default="neighbours", metadata={"doc": "initial SPHCs: neighbours (2022) or zeros (2024)"}
    )
    chi_invariant: str = field(default="norm", metadata={"doc": "norm (2022) or squared (2024)"})
    norm_eps: float = field(
        default=1e-2, metadata={"doc": "ε that smooths norms at zero; 0 is the published form"}
    )
    attention_bias: bool = field(default=True, metadata={"doc": "biases in q, k and v"})
    attention_scale: float | None = field(
        default=None, metadata={"doc": "factor of α; none for 1/sqrt(width of a head)"}
    )
    interaction: str = field(default="selfmix", metadata={"doc": "selfmix (2022) or linear (2024)"})
    parity: bool = field(default=True, metadata={"doc": "SelfMix keeps mirror symmetry"})
    layer_norm: bool = field(
        default=False, metadata={"doc": "LayerNorm after attention and after the interaction"}
    )
    chi_norm: bool = field(
        default=False, metadata={"doc": "norm of the SPHCs of each degree after attention"}
    )
    residual_mlp: bool = field(default=False, metadata={"doc": "residual MLP after attention"})
    nonlocal_: str = field(
        default="none", metadata={"doc": "non-local attention within groups: none, sphc or efa"}
    )
    kappa: float = field(default=1.0, metadata={"doc": "sphc: κ of χ_cut = κ/n"})
    nonlocal_p: int = field(default=6, metadata={"doc": "sphc: order p of the cutoff φ_χ"})
    temperature: float = field(
        default=1.0, metadata={"doc": "sphc: T of the softmax of d/T; 1 is the published form"}
    )
    efa_features: int = field(default=8, metadata={"doc": "efa: D, width of q and k; even"})
    efa_values: int = field(default=16, metadata={"doc": "efa: width of the invariant values"})
    efa_waves: str = field(
        default="lebedev",
        metadata={"doc": "efa: lebedev (molecules) or reciprocal (periodic crystals and liquids)"},
    )
    efa_grid: int = field(default=50, metadata={"doc": "efa: points of the Lebedev grid"})
    efa_reach: float = field(default=15.0, metadata={"doc": "efa: L_max, largest diameter of a group, Å"})
    efa_k_max: float = field(default=1.0, metadata={"doc": "efa: longest reciprocal vector, 1/Å"})
    charge_embedding: bool = field(default=False, metadata={"doc": "the features depend on the total charge"})
    spin_embedding: bool = field(
        default=False, metadata={"doc": "the features depend on the number of unpaired electrons"}
    )
    zbl: bool = field(default=False, metadata={"doc": "nuclear repulsion of atoms closer than 1.5 Å"})
    electrostatics: bool = field(
        default=False, metadata={"doc": "Coulomb energy of predicted charges; with dispersion"}
    )
    dispersion: bool = field(
        default=False,
        metadata={"doc": "van der Waals energy of predicted volumes; with electrostatics"},
    )
    n_species: int = field(
        default=100, metadata={"doc": "rows of the element tables, indexed by atomic number"}
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "degrees", tuple(int(degree) for degree in self.degrees))
        positive = (
            "features",
            "layers",
            "heads",
            "n_rbf",
            "radial_hidden",
            "chi_hidden",
            "cutoff",
            "n_species",
            "kappa",
            "temperature",
            "efa_features",
            "efa_values",
            "efa_reach",
            "efa_k_max",
        )
        for name in positive:
            _require(getattr(self, name) > 0, name, getattr(self, name), "it must be positive")
        degrees = self.degrees
        _require(
            len(degrees) > 0
            and set(degrees) <= set(range(MAX_DEGREE + 1))
            and sorted(set(degrees)) == list(degrees),
            "degrees", list(degrees), f"use different degrees from 0 to {MAX_DEGREE} in rising order",
        )  # fmt: skip
        _require(
            self.features % self.heads == 0,
            "features",
            self.features,
            f"it must be divisible by heads = {self.heads}",
        )
        _require(
            self.features % len(degrees) == 0, "features", self.features,
            f"it must be divisible by the number of degrees, {len(degrees)}",
        )  # fmt: skip
        _require(self.n_rbf >= 2, "n_rbf", self.n_rbf, "at least 2 are needed")
        _require(self.cutoff_p >= 2, "cutoff_p", self.cutoff_p, "at least 2 is needed for smooth forces")
        _require(
            self.nonlocal_p >= 2, "nonlocal_p", self.nonlocal_p, "at least 2 is needed for smooth forces"
        )
        _require(self.efa_features % 2 == 0, "efa_features", self.efa_features, "it must be even")
        grids = ", ".join(map(str, GRIDS))
        _require(self.efa_grid in GRIDS, "efa_grid", self.efa_grid, f"choose one of {grids}")
        _require(self.norm_eps >= 0, "norm_eps", self.norm_eps, "it must not be negative")
        self._check_choices()

    def _check_choices(self) -> None:
        """Refuse unknown values of text fields."""
        choices: dict[str, Any] = {
            "cutoff_function": CUTOFFS,
            "radial_basis": RADIAL_BASES,
            "direction": ("to_centre", "to_neighbour"),
            "chi_start": ("neighbours", "zeros"),
            "chi_invariant": CHI_INVARIANTS,
            "interaction": INTERACTIONS,
            "nonlocal_": NONLOCAL_KINDS,
            "efa_waves": WAVES,
        }
        for name, allowed in choices.items():
            _require(
                getattr(self, name) in allowed,
                name,
                getattr(self, name),
                f"choose one of {', '.join(allowed)}",
            )

    @property
    def chi_width(self) -> int:
        """Components of the SPHCs χ, 2l + 1 of each degree l."""
        return sum(2 * degree + 1 for degree in self.degrees)

    @property
    def max_group_diameter(self) -> float:
        """Largest diameter of a group, Å; 0 without a limit."""
        return self.efa_reach if self.nonlocal_ == "efa" and self.efa_waves == "lebedev" else 0.0

    @classmethod
    def preset(cls, name: str) -> "ModelConfig":
        """A published model: so3krates-2022, euclidean-2024, its invariant twin invariant-2024, or so3lr."""
        if name not in PRESETS:
            raise So3kError(f"unknown preset {name!r}: choose one of {', '.join(PRESETS)}")
        return PRESETS[name]


def needs_of_config(config: ModelConfig, elements: list[int]) -> Needs:
    """The needs of a model of this shape.

    Args:
        config: its shape.
        elements: atomic numbers that it knows.
    """
    return Needs(
        format_version=FORMAT_VERSION,
        config=json.dumps(to_mapping(config)),
        elements=elements,
        cutoff=config.cutoff,
        nonlocal_kind=config.nonlocal_,
        max_group_diameter=config.max_group_diameter,
        has_charge_state=config.charge_embedding or config.spin_embedding or config.electrostatics,
        has_long_range=config.electrostatics,
        has_zbl=config.zbl,
        n_layers=config.layers,
        features=config.features,
        chi_width=config.chi_width,
        chi_from_neighbors=config.chi_start == "neighbours",
    )


def _require(condition: bool, name: str, value: object, remedy: str) -> None:
    if not condition:
        raise So3kError(f"model.{name.rstrip('_')} = {value!r} is impossible: {remedy}")


_EUCLIDEAN = ModelConfig(
    layers=3,
    degrees=(0, 1, 2, 3),
    damp_rbf=False,
    radial_hidden=132,
    chi_hidden=33,
    direction="to_neighbour",
    chi_start="zeros",
    chi_invariant="squared",
    attention_bias=False,
    interaction="linear",
)
PRESETS = {
    "so3krates-2022": ModelConfig(),
    "euclidean-2024": _EUCLIDEAN,
    "invariant-2024": replace(_EUCLIDEAN, degrees=(0,)),
    "so3lr": replace(
        _EUCLIDEAN,
        features=128,
        degrees=(1, 2, 3, 4),
        cutoff=4.5,
        cutoff_function="physnet",
        radial_basis="bernstein",
        radial_hidden=128,
        chi_hidden=32,
        attention_scale=1 / 13.168995780096482,
        layer_norm=True,
        residual_mlp=True,
        charge_embedding=True,
        spin_embedding=True,
        zbl=True,
        electrostatics=True,
        dispersion=True,
        n_species=119,
    ),
}
