"""So3krates with its messages computed by the compiled kernels, and how any model takes this form."""

import hashlib
import io
import json
import uuid
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from so3k_md.config import from_mapping, to_mapping
from so3k_md.errors import So3kError
from so3k_md.facts import facts_of, set_facts
from so3k_md.graph import Edges
from so3k_md.kernels.build import known_operators, load_kernels
from so3k_md.kernels.layer import KernelLayer
from so3k_md.kernels.long_range import KernelLongPairs
from so3k_md.kernels.table import TOLERANCES, Tabulated
from so3k_md.model import So3krates, set_dtype, weights_hash
from so3k_md.model_config import ModelConfig
from so3k_md.nn.nonlocal_sphc import Groups


class KernelSo3krates(So3krates, Tabulated):
    """The same energies as So3krates from every pair given once, by the compiled kernels.

    The module does not hold what the kernels make of the weights, tables above all. The library keeps it,
    once in a process for all models with the same `key`, and it is made at the first call.

    Args:
        config: shape of the model.
        elements: atomic numbers that the model knows.
    """

    def __init__(self, config: ModelConfig, elements: list[int]):
        super().__init__(config, elements)
        self.kernels = True  # by which others tell this form
        self.shape = json.dumps(to_mapping(config))
        self.key = uuid.uuid4().hex  # that of nobody else; `with_weights` has one of the content
        self.layers = nn.ModuleList(
            [KernelLayer(config, k == 0 and not self.chi_from_neighbours) for k in range(config.layers)]
        )
        if self.has_long_range:
            self.long_pairs = KernelLongPairs(config.rounding)
        self.degrees = list(config.degrees)
        self.n_rbf = config.n_rbf
        self.tolerances = [TOLERANCES[torch.float32], TOLERANCES[torch.float64]]
        self.tiled = False  # the kernel makes far pairs again in the reverse pass by itself
        self.odd = [degree % 2 == 1 for degree in config.degrees for _ in range(2 * degree + 1)]

    def function(self, n: int, r: Tensor) -> Tensor:
        """Radial filters: of local pairs in layer n, from n_layers on of far pairs in layer n − n_layers."""
        rbf = self.radial_basis(r)
        # beyond the cutoff the basis is damped also where local pairs do without; see `far_neighbours`
        damped = rbf * self.cutoff_function(r)[:, None]
        found = rbf
        for i, layer in enumerate(self.layers):
            if i == n:
                found = layer.near_radial(damped if self.damp_rbf else rbf)
            if self.n_layers + i == n:
                found = layer.far_radial(damped)
        return found

    def constants(self, n: int, x: Tensor) -> list[Tensor]:
        """What the kernels make of the weights of a layer, for local or far pairs as in `function`.

        Args:
            n: number of the function in `function`.
            x: any features.
        """
        weight = self.embedding.weight
        key = self.key + " " + str(n)
        made = torch.ops.so3k.recall(x, weight, key)
        if len(made) == 0:
            tolerance = self.tolerances[0 if weight.dtype == torch.float32 else 1]
            table = self.table(n, self.cutoff, tolerance)
            with torch.no_grad():
                for i, layer in enumerate(self.layers):
                    if i == n:
                        made = layer.near_constants(table)
                    if self.n_layers + i == n:
                        made = layer.far_constants(table, self.n_rbf)
            made = torch.ops.so3k.keep(weight, key, made)
        return made

    def steps(self) -> list[Tensor]:
        """Of what harmonics are made of those one degree lower, (2l + 3, 3 (2l + 1)) for each degree l."""
        dtype = self.embedding.weight.dtype
        found: list[Tensor] = []
        for step in self.harmonics.steps:
            found.append(step.weight.t().to(dtype).clone())
        # at least one, which carries the precision
        return found if len(found) > 0 else [torch.zeros([3, 3], dtype=dtype)]

    @torch.jit.export
    def geometry(self, vectors: Tensor, idx_i: Tensor, idx_j: Tensor) -> Edges:
        """As in So3krates, of every pair once: from one of two centres, or from a centre to its source.

        A source is a centre if it has pairs of its own.
        """
        r, ylm, idx_i, idx_j, back = torch.ops.so3k.geometry(
            vectors, idx_i, idx_j, self.steps(), self.degrees, self.direction
        )
        return Edges(idx_i, idx_j, r[:, None], ylm, self.cutoff_function(r), r, back)

    def tally(
        self, vectors: Tensor, slopes: Tensor, idx_i: Tensor, idx_j: Tensor, frame: Tensor, n_frames: int
    ) -> tuple[Tensor, Tensor]:
        """As in So3krates."""
        return torch.ops.so3k.tally(vectors, slopes, idx_i, idx_j, frame, n_frames)

    def directed(self, edges: Edges) -> Edges:
        """The same pairs in both directions, without what only layers read."""
        turned = torch.nonzero(edges.back)[:, 0]
        ylm = edges.ylm.index_select(0, turned)
        ylm = torch.where(torch.tensor(self.odd, device=ylm.device), -ylm, ylm)
        return Edges(
            torch.cat([edges.idx_i, edges.idx_j.index_select(0, turned)]),
            edges.idx_j,
            edges.rbf,
            torch.cat([edges.ylm, ylm]),
            torch.cat([edges.cut, edges.cut.index_select(0, turned)]),
            edges.r,
            edges.back,
        )

    @torch.jit.export
    def attend(
        self, k: int, x: Tensor, chi: Tensor, x_src: Tensor, chi_src: Tensor, edges: Edges
    ) -> tuple[Tensor, Tensor]:
        """Messages (Δx, Δχ) of layer k to the centres (x, χ) from the sources (x_src, χ_src)."""
        dx, dchi = x, chi
        constants = self.constants(k, x)
        for i, layer in enumerate(self.layers):
            if i == k:
                dx, dchi = layer.near(x, chi, x_src, chi_src, edges, self.cutoff, constants)
        return dx, dchi

    @torch.jit.export
    def tiles(self, groups: Groups) -> list[int]:
        """sphc: all centres at once, as the kernel has tiles of its own."""
        return [0, groups.size.size(0)] if groups.size.size(0) > 0 else [0]

    @torch.jit.export
    def far_attend(
        self,
        k: int,
        x: Tensor,
        chi: Tensor,
        r: Tensor,
        x_src: Tensor,
        chi_src: Tensor,
        r_src: Tensor,
        groups: Groups,
        first: int,
        last: int,
    ) -> Tensor:
        """sphc: Δχ of layer k to some centres; see `far_pairs` and `far_message`."""
        dchi = chi
        query, key = self.far_rows(k, x[first:last], x_src)
        mine = Groups(
            groups.members, groups.first[first:last], groups.size[first:last], groups.own[first:last]
        )
        constants = self.constants(self.n_layers + k, x)
        for i, layer in enumerate(self.layers):
            if i == k:
                dchi = layer.far(
                    query,
                    key,
                    chi[first:last],
                    r[first:last],
                    chi_src,
                    r_src,
                    mine,
                    self.cutoff,
                    self.direction,
                    constants,
                    self.steps(),
                )
        return dchi

    def far_messages(self, k: int, x: Tensor, chi: Tensor, r: Tensor, groups: Groups) -> Tensor:
        """sphc: Δχ of layer k to all atoms."""
        return self.far_attend(k, x, chi, r, x, chi, r, groups, 0, x.size(0))


def eager(model: Any) -> So3krates:
    """The model of an exported file as an object of this package, from what the file says of itself."""
    if isinstance(model, So3krates):
        return model
    shape = json.loads(model.shape) if hasattr(model, "shape") else json.loads(model.metadata)["config"]
    copy = So3krates(from_mapping(ModelConfig, shape, "model"), model.elements)
    return take_over(copy, model).eval()


def take_over(model: So3krates, source: Any) -> So3krates:
    """Weights, their precision and all facts, from a model of the same shape, in place."""
    set_dtype(model, next(source.parameters()).dtype)  # first: weights take the precision of where they go
    model.load_state_dict(source.state_dict())
    set_facts(model, facts_of(source))
    return model.requires_grad_(False)


@lru_cache(maxsize=16)
def kernel_code(config: ModelConfig, elements: tuple[int, ...]) -> bytes:
    """The form with kernels of all models of one shape as a TorchScript file without weights.

    Args:
        config: their shape.
        elements: atomic numbers that they know.
    """
    form = KernelSo3krates(config, list(elements)).eval().requires_grad_(False)
    form.key = ""
    with known_operators():
        return bytes(torch.jit.script(emptied(form)).save_to_buffer())


def emptied(form: nn.Module) -> nn.Module:
    """A module without its weights and constants, in place."""
    for tensor in [*form.parameters(), *form.buffers()]:
        tensor.data = torch.empty([0], dtype=tensor.dtype)
    return form


def with_weights(code: bytes, model: Any) -> Any:
    """The form with kernels of a model, whose weights and constants it shares.

    Loaded instead of scripted, for what belongs to the unit of compilation of a file ends with it, and what
    is scripted never does, nor its copies.

    Args:
        code: of `kernel_code`.
        model: eager or exported.
    """
    form = torch.jit.load(io.BytesIO(code))
    given = dict(model.named_parameters()) | dict(model.named_buffers())
    for name, tensor in [*form.named_parameters(), *form.named_buffers()]:
        tensor.data = given[name].data
    set_facts(form, facts_of(model))
    form.key = hashlib.sha256(code + weights_hash(model).encode()).hexdigest()
    return form.eval()


def accelerated(model: Any, kernels: str = "auto", code: bytes | None = None) -> Any:
    """The model with compiled kernels where these serve it, else the model itself.

    Args:
        model: eager or exported, ready for evaluation.
        kernels: auto, for models in float32 on a CPU if the kernels are built; on, for any model on a CPU,
            or else an error; off.
        code: of `kernel_code`, if it is known already.

    Raises:
        So3kError: another word, or `on` where it cannot be.
    """
    if kernels not in ("auto", "on", "off"):
        raise So3kError(f"kernels = {kernels!r} is not known: choose auto, on or off")
    weight = next(model.parameters())
    made = hasattr(model, "kernels")
    if made or kernels == "off" or (kernels == "auto" and weight.dtype != torch.float32):
        return model
    obstacle = None
    if weight.device.type != "cpu":
        obstacle = "the kernels are for CPUs"
    elif not isinstance(model, So3krates) and "config" not in json.loads(model.metadata):
        obstacle = "the model does not say how it is built: export it with so3k-md export"
    elif not load_kernels():
        obstacle = "the kernels are not built: so3k-md kernels build"
    if obstacle and kernels == "on":
        raise So3kError(f"kernels = on is impossible: {obstacle}")
    if obstacle:
        return model
    if code is None:
        shape = eager(model)
        code = kernel_code(shape.config, tuple(shape.elements))
    return with_weights(code, model)
