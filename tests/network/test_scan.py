"""The back ends of the selective scan against its definition."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ecmnet_app.network.scan import (
    available_backends,
    chunked,
    mamba_kernel,
    reference,
    selective_scan,
    triton_kernel,
)

LENGTHS = [1, 7, 8, 9, 15, 16, 17, 257, 690]
STATES = [1, 4, 16]


def random_inputs(
    length: int, state: int = 1, groups: int = 1, batch: int = 2, dim: int = 8, dtype: torch.dtype = torch.float32
) -> list[Tensor]:
    """u, delta, A, B, C, D with steps and decays of the size that a trained network has."""
    generator = torch.Generator().manual_seed(length * 100 + state * 10 + groups)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=dtype)

    delta = torch.nn.functional.softplus(normal(batch, dim, length) - 2)
    A = -torch.exp(normal(dim, state))
    B, C = normal(batch, groups, state, length), normal(batch, groups, state, length)
    return [normal(batch, dim, length), delta, A, B, C, normal(dim)]


def test_reference_known_answer():
    """Two steps by hand: h1 = d1 B1 u1, h2 = exp(d2 A) h1 + d2 B2 u2, y = C h + D u."""
    u = torch.tensor([[[2.0, 3.0]]])
    delta = torch.tensor([[[0.5, 1.0]]])
    A, D = torch.tensor([[-1.0]]), torch.tensor([10.0])
    B, C = torch.tensor([[[[1.0, 4.0]]]]), torch.tensor([[[[1.0, 2.0]]]])
    h1 = 0.5 * 1.0 * 2.0
    h2 = 0.36787944117 * h1 + 1.0 * 4.0 * 3.0
    expected = torch.tensor([[[h1 + 20.0, 2 * h2 + 30.0]]])
    for backend in ("reference", "torch"):
        torch.testing.assert_close(selective_scan(u, delta, A, B, C, D, backend=backend), expected)


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("length", LENGTHS)
def test_torch_equals_reference(length: int, state: int, groups: int):
    inputs = random_inputs(length, state, groups)
    expected = selective_scan(*inputs, backend="reference")
    torch.testing.assert_close(selective_scan(*inputs, backend="torch"), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("length", [9, 257])
def test_gradients_equal_reference(length: int):
    gradients = []
    for backend in ("reference", "torch"):
        inputs = [t.requires_grad_() for t in random_inputs(length, state=4, groups=2)]
        y = selective_scan(*inputs, backend=backend)
        gradients.append(torch.autograd.grad((y * torch.linspace(-1, 1, length)).sum(), inputs))
    for ours, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))


@pytest.mark.parametrize("backend", ["reference", "torch"])
@pytest.mark.parametrize("length", [3, 19])
def test_gradcheck_float64(backend: str, length: int):
    inputs = random_inputs(length, state=2, groups=2, batch=1, dim=4, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda *args: selective_scan(*args, backend=backend), [t.requires_grad_() for t in inputs]
    )


@pytest.mark.parametrize("backend", ["reference", "torch"])
def test_strong_decays_neither_overflow_nor_lose_the_answer(backend: str):
    """Log-decays of -800 a step: a form that divides by the running decay would be infinite."""
    u, delta, A, B, C, D = random_inputs(100, state=4, groups=2, dtype=torch.float64)
    inputs = [t.requires_grad_() for t in (u, delta * 0 + 50.0, A * 0 - 16.0, B, C, D)]
    y = selective_scan(*inputs, backend=backend)
    forgotten = (50.0 * B * C).sum(2).repeat_interleave(4, dim=1) * u + D[:, None] * u  # only the newest step is left
    torch.testing.assert_close(y, forgotten)
    assert all(torch.isfinite(g).all() for g in torch.autograd.grad(y.sum(), inputs))


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("piece", [1, 2000, 5000])
def test_pieces_give_the_same_answer(monkeypatch: pytest.MonkeyPatch, piece: int, groups: int):
    inputs = random_inputs(257, state=4, groups=groups)
    whole = selective_scan(*inputs, backend="torch")
    monkeypatch.setattr(chunked, "PIECE", piece)
    with torch.inference_mode():
        torch.testing.assert_close(selective_scan(*inputs, backend="torch"), whole)


def test_compiled_form_equals_reference():
    """Forward and gradient must not notice torch.compile."""
    compiled = torch.compile(
        lambda *args: selective_scan(*args, backend="torch"), backend="aot_eager", fullgraph=True, dynamic=False
    )
    results = []
    for scan in (compiled, lambda *args: selective_scan(*args, backend="reference")):
        inputs = [t.requires_grad_() for t in random_inputs(75, state=2, groups=2, dtype=torch.float64)]
        y = scan(*inputs)
        results.append((y, *torch.autograd.grad(y.square().sum(), inputs)))
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected)


def test_auto_is_torch_without_a_gpu():
    inputs = random_inputs(33)
    assert torch.equal(selective_scan(*inputs), selective_scan(*inputs, backend="torch"))


def test_mamba_ssm_gives_the_same_answer():
    if not mamba_kernel.is_available():
        pytest.skip("mamba-ssm does not import here (it is built with CUDA)")
    if not torch.cuda.is_available():
        pytest.skip("mamba-ssm is installed, but there is no GPU to run it on")
    for length in LENGTHS:
        for state in STATES:
            inputs = [t.cuda() for t in random_inputs(length, state, groups=4)]
            ours = selective_scan(*inputs, backend="mamba-ssm")
            torch.testing.assert_close(ours, selective_scan(*inputs, backend="torch"), rtol=1e-4, atol=1e-4)


def test_bad_requests_say_what_is_wrong():
    u, delta, A, B, C, D = random_inputs(10, groups=2)
    with pytest.raises(ValueError, match=r"no back end 'cuda'; there are reference, torch, triton, mamba-ssm"):
        selective_scan(u, delta, A, B, C, D, backend="cuda")
    with pytest.raises(ValueError, match=r"shapes do not fit: .*delta \(2, 8, 9\)"):
        selective_scan(u, delta[..., 1:], A, B, C, D)
    with pytest.raises(ValueError, match="3 groups do not divide 8 channels"):
        selective_scan(u, delta, A, *[t[:, :1].expand(-1, 3, -1, -1) for t in (B, C)], D)
    assert "mamba-ssm" not in available_backends("cpu")
    with pytest.raises(ValueError, match="cannot run on cpu here; available: reference, torch"):
        selective_scan(u, delta, A, B, C, D, backend="mamba-ssm")


@pytest.mark.skipif(not triton_kernel.is_available(), reason="Triton is missing")
@pytest.mark.parametrize("steps", [8, 64])
@pytest.mark.parametrize(
    ("batch", "dim", "groups", "state", "length"),
    [(2, 16, 4, 1, 37), (1, 8, 2, 3, 20), (2, 16, 4, 1, 8), (1, 6, 1, 2, 9), (1, 8, 1, 1, 1)],
)
def test_triton_equals_reference(
    monkeypatch: pytest.MonkeyPatch, steps: int, batch: int, dim: int, groups: int, state: int, length: int
):
    """Forward and backward, in one block of time and in several; on a GPU or in Triton's interpreter."""
    monkeypatch.setattr(triton_kernel, "STEPS", steps)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    answers = []
    for scan, dtype in ((triton_kernel.selective_scan, torch.float32), (reference.selective_scan, torch.float64)):
        inputs = [t.to(device, dtype).requires_grad_() for t in random_inputs(length, state, groups, batch, dim)]
        y = scan(*inputs)
        weight = torch.linspace(-1, 2, y.numel(), device=device, dtype=dtype).view_as(y)
        answers.append([y, *torch.autograd.grad((y * weight).sum(), inputs)])
        with torch.no_grad():
            torch.testing.assert_close(scan(*inputs), y)  # without the states that a gradient needs
    for ours, expected in zip(*answers, strict=True):
        assert float((ours - expected).norm()) <= 1e-5 * float(expected.norm())
