"""What makes the pretended device worth a test: it refuses and counts what a GPU refuses and waits for."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from pretend import waits

A = torch.arange(6.0).view(2, 3)


def test_operators_and_views_give_what_the_cpu_gives(device):
    a = A.to(device)
    for function in (
        lambda x: x @ x.t(),
        lambda x: x[:, 1:].clone() + x.transpose(0, 1)[1:].t(),
        lambda x: torch.cat([x, x.reshape(3, 2).view(2, 3)])[torch.tensor([2, 0], device=x.device)],
        lambda x: x.clone().index_add_(0, torch.tensor([1, 1], device=x.device), x),
        lambda x: x[x > 2.0],
    ):
        assert torch.equal(function(a).cpu(), function(A))


def test_gradients_pass_through(device):
    a = A.to(device).requires_grad_()
    (gradient,) = torch.autograd.grad((a * a).sum(), a)
    assert torch.equal(gradient.cpu(), 2 * A)


def test_two_devices_in_one_call_are_refused_but_for_single_numbers(device):
    a = A.to(device)
    for mixed in (lambda: a + A, lambda: a @ A.t(), lambda: a.index_select(0, torch.tensor([0]))):
        with pytest.raises(RuntimeError, match="on (one|the same) device"):
            mixed()
    assert torch.equal((a + torch.tensor(1.0)).cpu(), A + 1)


def test_the_host_may_not_touch_its_memory_and_a_kernel_may(device):
    code = (
        "import ctypes, sys, torch, pretend\n"
        "device = pretend.load_device()\n"
        "a = torch.full([4], 3, dtype=torch.uint8).to('pretend')\n"
        "b = torch.empty_like(a)\n"
        "for word in sys.argv[1:]: device.so3k_pretend_open(word == 'open')\n"
        "print(*ctypes.string_at(a.data_ptr(), 4), *ctypes.string_at(b.data_ptr(), 1))\n"
    )
    run = [sys.executable, "-W", "ignore", "-c", code]
    here = Path(__file__).parent
    opened = subprocess.run([*run, "open"], capture_output=True, text=True, cwd=here)
    assert opened.stdout.split()[-5:] == ["3", "3", "3", "3", str(0x7B)]  # and what nobody wrote
    for words in ([], ["open", "closed"]):
        closed = subprocess.run([*run, *words], capture_output=True, text=True, cwd=here)
        assert closed.returncode == -signal.SIGSEGV


@pytest.mark.parametrize(
    ("read", "operator"),
    [
        (lambda a: a.sum().item(), "number to the host"),
        (lambda a: bool((a > 0).any()), "number to the host"),
        (lambda a: a.cpu(), "copy to the host"),
        (lambda a: a.tolist(), "copy to the host"),
        (lambda a: torch.zeros(2).to(a.device), "copy to the device"),
        (torch.nonzero, "aten::nonzero"),
        (lambda a: a[a > 2], "aten::index"),
        (torch.unique, "aten::_unique2"),
        (lambda a: torch.equal(a, a), "aten::equal"),
        (lambda a: torch.repeat_interleave(a[0].long()), "aten::repeat_interleave"),
        (lambda a: torch.linalg.inv(a[:, :2]), "number to the host"),
    ],
)
def test_reads_are_counted(read, operator, device):
    a = A.to(device)
    with waits() as found:
        read(a)
    assert operator in {what for what, _ in found}


def test_work_without_reads_is_not_counted(device):
    a = A.to(device)
    with waits() as found:
        b = (a @ a.t()).sum() + a[torch.arange(2, device=device)].sum()
        torch.repeat_interleave(a[0].long(), output_size=3)
        torch.linalg.inv_ex(a[:, :2])
        b = torch.full([], 2.0, device=device) * b
    assert not found
    assert float(b) == 2 * float((A @ A.t()).sum() + A.sum())
