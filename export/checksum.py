"""A sum over the numbers of a scripted model, by which it notices damage wherever it was kept.

A TorchForce keeps its module in OpenMM's XML, where no seal of a file protects it.
"""

import torch
from torch import Tensor

# TorchScript types of attributes -> the tensors that they are made of
AS_TENSORS = {
    "Tensor": "[{}]",
    "List[Tensor]": "{}",
    "float": "[torch.tensor({}, dtype=torch.float64)]",
    "int": "[torch.tensor({}, dtype=torch.int64)]",
    "List[float]": "[torch.tensor({}, dtype=torch.float64)]",
    "List[int]": "[torch.tensor({}, dtype=torch.int64)]",
}


def bit_sum(tensor: Tensor) -> Tensor:
    """A whole number (), int64, that changes with any change of one number of a tensor, on any device."""
    mantissa, exponent = torch.frexp(tensor.to(torch.float64).reshape(-1))
    bits = (mantissa * 9007199254740992.0).to(torch.int64) * 2048 + exponent.to(torch.int64)  # 2**53
    # weights that are odd, and hence no change of a single number is lost modulo 2**64
    places = 2 * torch.arange(bits.numel(), device=bits.device) + 1
    return (bits * places).sum().cpu()


def define_checksum(model: torch.jit.ScriptModule) -> None:
    """Give a scripted model the method `checksum() -> int` over all its parameters, buffers and numbers."""
    if hasattr(model, "checksum"):  # a copy of one that has it
        return
    lines = ["def checksum(self) -> int:", "    total = torch.zeros([], dtype=torch.int64)"]
    for path, part in model.named_modules():
        place = "self"
        for name in filter(None, path.split(".")):
            place = f'getattr({place}, "{name}")'
        kinds = {name: str(kind) for name, (kind, _) in part._concrete_type.get_attributes().items()}
        for name, kind in sorted(kinds.items()):
            if kind in AS_TENSORS:
                lines.append(f"    for tensor in {AS_TENSORS[kind].format(f'{place}.{name}')}:")
                lines.append("        total = 31 * total + bit_sum(tensor)")
    model.define("\n".join([*lines, "    return int(total)", ""]))
