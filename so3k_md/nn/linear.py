"""Linear maps with the initialisation of the published code (LeCun normal weights, zero biases)."""

import math

import torch
from torch import Tensor, nn

from so3k_md.nn.activation import silu


def lecun_normal(*shape: int, fan_in: int, generator: torch.Generator) -> nn.Parameter:
    """A parameter drawn from a normal distribution of variance 1 / fan_in."""
    return nn.Parameter(torch.randn(shape, generator=generator) / math.sqrt(fan_in))


class Linear(nn.Module):
    """y = x W + b, or y = x W."""

    def __init__(self, n_in: int, n_out: int, generator: torch.Generator, bias: bool = True):
        super().__init__()
        self.weight = lecun_normal(n_in, n_out, fan_in=n_in, generator=generator)
        self.bias = nn.Parameter(torch.zeros(n_out)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """(rows, n_in) to (rows, n_out)."""
        bias = self.bias
        return x @ self.weight if bias is None else torch.addmm(bias, x, self.weight)

    def exact(self, x: Tensor) -> Tensor:
        """The same in float64, whatever the parameters are in."""
        bias = self.bias
        # torch's shape analysis mistakes the shape of x for that of x @ W if both are constants
        y = torch.mm(x, self.weight.to(torch.float64))
        return y if bias is None else y + bias


class ResidualMLP(nn.Module):
    """x + Lin(σ(Lin(σ(x))))."""

    def __init__(self, features: int, generator: torch.Generator, bias: bool = True):
        super().__init__()
        self.first = Linear(features, features, generator, bias)
        self.second = Linear(features, features, generator, bias)

    def forward(self, x: Tensor) -> Tensor:
        """(rows, features) to (rows, features)."""
        return x + self.second(silu(self.first(silu(x))))


class MLP(nn.Module):
    """Lin(σ(Lin(x)))."""

    def __init__(self, n_in: int, n_hidden: int, n_out: int, generator: torch.Generator):
        super().__init__()
        self.hidden = Linear(n_in, n_hidden, generator)
        self.out = Linear(n_hidden, n_out, generator)

    def forward(self, x: Tensor) -> Tensor:
        """(rows, n_in) to (rows, n_out)."""
        return self.out(silu(self.hidden(x)))

    def exact(self, x: Tensor) -> Tensor:
        """The same in float64, whatever the parameters are in."""
        return self.out.exact(silu(self.hidden.exact(x)))

    def shifted(self, x: Tensor, shift: Tensor) -> Tensor:
        """`forward` plus one row (n_out,), which is added to the bias."""
        bias = self.out.bias
        return torch.addmm(shift if bias is None else bias + shift, silu(self.hidden(x)), self.out.weight)


class HeadLinear(nn.Module):
    """One linear map per head on its own chunk of the features: y_h = x_h W_h + b_h."""

    def __init__(self, features: int, heads: int, bias: bool, generator: torch.Generator):
        super().__init__()
        width = features // heads
        self.heads = heads
        self.weight = lecun_normal(heads, width, width, fan_in=width, generator=generator)
        self.bias = nn.Parameter(torch.zeros(features)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """(rows, features) to (rows, features)."""
        rows, features = x.shape
        chunks = x.view(rows, self.heads, features // self.heads).transpose(0, 1)  # (heads, rows, width)
        y = torch.bmm(chunks, self.weight).transpose(0, 1).reshape(rows, features)
        bias = self.bias
        return y if bias is None else y + bias
