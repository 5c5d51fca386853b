"""The audit: the paper's figures, our counts, and both checked against independent counters."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ecmnet_app.cli import main
from ecmnet_app.network import ECMNet, ECMNetConfig
from ecmnet_app.network.audit import PAPER, Count, count
from ecmnet_app.network.edab import DDA

SIZE = (512, 512)
FAMILIES = [("baseline", "A1", "A2", "A3"), ("B1", "B2", "B3"), ("C1", "C2", "C3")]


@pytest.fixture(scope="module")
def counts() -> dict[str, Count]:
    return {variant: count(ECMNetConfig.named(variant), SIZE) for family in FAMILIES for variant in family}


def test_full_network_and_baseline_meet_the_paper(counts: dict[str, Count]):
    """The paper's Table 1: 871.11 K and 8.27 G for the full network, 775.57 K and 7.56 G for the baseline."""
    assert counts["C3"].parameters == pytest.approx(871_110, rel=0.01)
    assert counts["baseline"].parameters == pytest.approx(775_570, rel=0.005)
    assert counts["C3"].g == pytest.approx(8.27, rel=0.05)
    assert counts["baseline"].g == pytest.approx(7.56, rel=0.05)


def test_every_row_is_near_the_paper(counts: dict[str, Count]):
    assert set(PAPER) == set(counts)
    for variant, (parameters, g) in PAPER.items():
        assert counts[variant].parameters / 1e3 == pytest.approx(parameters, rel=0.003), variant
        assert counts[variant].g == pytest.approx(g, rel=0.05), variant


@pytest.mark.parametrize("family", FAMILIES)
def test_the_papers_order_within_each_family(counts: dict[str, Count], family: tuple[str, ...]):
    for measure in (lambda v: counts[v].parameters, lambda v: counts[v].g, lambda v: counts[v].macs):
        values = [measure(variant) for variant in family]
        assert values == sorted(set(values))
    paper = [PAPER[variant] for variant in family]
    assert paper == sorted(paper)


def test_each_long_connection_is_a_3x3_to_16_channels_with_norm_and_prelu(counts: dict[str, Count]):
    """The steps of the paper's A rows: 2.35, 18.48 and 9.26 K, which is 9 C 16 weights and 3 x 16."""
    rows = [counts[v].parameters for v in FAMILIES[0]]
    assert [b - a for a, b in itertools.pairwise(rows)] == [
        9 * 16 * 16 + 48,
        9 * 128 * 16 + 48,
        9 * 64 * 16 + 48,
    ]


@pytest.mark.parametrize("variant", ["A3", "C3"])
def test_executed_macs_equal_torchs_own_counter(variant: str):
    config, size = ECMNetConfig.named(variant), (96, 133)
    net = ECMNet(config).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net(torch.zeros(1, 3, *size))
    scan = 6 * 9 * 4 * 192 * 6 if config.ffm else 0  # positions, directions, channels, products of a step at N = 1
    assert count(config, size).macs == counter.get_total_flops() // 2 + scan


@pytest.mark.parametrize("variant", ["A3", "C3"])
def test_thop_column_equals_thops_rules_by_module(variant: str):
    """The rules of thop 0.1.1, written out as forward hooks, with DDA's 1x1 convolutions at every position."""
    net, total = ECMNet(ECMNetConfig.named(variant)).eval(), 0
    gates = {id(conv) for dda in net.modules() if isinstance(dda, DDA) for conv in (dda.rows, dda.columns)}

    def hook(module: nn.Module, args: tuple[torch.Tensor], output: torch.Tensor) -> None:
        nonlocal total
        x = args[0]
        if id(module) in gates:
            return
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.ConvTranspose2d):
            taps = module.weight[0, 0].numel()
            total += output.numel() * (module.in_channels // module.groups) * taps
        elif isinstance(module, nn.Linear):
            total += output.numel() * module.in_features
        elif isinstance(module, nn.BatchNorm2d | nn.LayerNorm):
            total += 4 * x.numel()
        elif isinstance(module, nn.PReLU):
            total += x.numel()
        elif isinstance(module, DDA):
            total += 2 * x.numel() * x.shape[1]

    for module in net.modules():
        module.register_forward_hook(hook)
    with torch.no_grad():
        net(torch.zeros(1, 3, 96, 128))
    assert count(net.config, (96, 128)).thop_g == pytest.approx(total / 1e9, rel=1e-9)


def test_an_operation_without_a_rule_is_an_error(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(nn.PReLU, "forward", lambda self, x: torch.cosh(x))
    with pytest.raises(RuntimeError, match="does not name the operation 'cosh'"):
        count(ECMNetConfig.named("baseline"), (32, 32))


def test_the_command_states_rule_and_figures(counts: dict[str, Count], capsys: pytest.CaptureFixture[str]):
    assert main(["info", "--audit"]) == 0
    table = capsys.readouterr().out
    rows = {line.split()[0]: line for line in table.splitlines() if line[:1].isalnum()}
    for variant, (parameters, g) in PAPER.items():
        figures = (
            f"{counts[variant].parameters / 1e3:.2f}",
            f"{parameters:.2f}",
            f"{counts[variant].g:.3f}",
            f"{g:.2f}",
        )
        assert all(figure in rows[variant].split() for figure in figures)
    assert "G, our counting rule" in table
    assert all(size in table for size in ("360x480", "512x512", "1024x1024"))
