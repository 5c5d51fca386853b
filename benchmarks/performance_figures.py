"""The pictures of docs/performance.md, from what benchmarks/peers.py wrote.

    python benchmarks/performance_figures.py docs/performance/peers.json --out docs/performance

accuracy.svg: mIoU on CamVid's test split over parameters, and over the time of a picture where it was measured. Ours is
what `ecmnet evaluate` recorded in the weights' JSON; the others' accuracy is what their authors publish.
groups.svg: where the microseconds of one answer go, by layer group, beside the roofline; only for a run on a GPU.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from ecmnet_app.core.weights import load_weights
from ecmnet_app.media.files import write_atomically
from ecmnet_app.training.figures import svg_bytes

OURS = ("camvid", "camvid-scratch")
SIZE = [360, 480]


@dataclass(frozen=True)
class Published:
    """What authors say of their own network: CamVid's test split at 360x480, trained from scratch."""

    network: str
    parameters_m: float
    miou: float | None
    """Percent; None where they publish none for CamVid."""
    source: str


PUBLISHED = (
    Published("DABNet", 0.76, 66.4, "BMVC 2019"),
    Published("FBSNet", 0.62, 68.9, "arXiv 2109.00699"),
    Published("LETNet", 0.95, 70.5, "arXiv 2302.10484"),
    Published("HAFormer", 0.60, 71.1, "arXiv 2407.07441"),
    Published("ECMNet, its paper", 0.87, 73.6, "arXiv 2506.08629"),
)


def draw_accuracy(report: dict[str, Any]) -> bytes:
    """mIoU over parameters and over time. SVG."""
    networks = next(s["networks"] for s in report["shapes"] if (s["size"], s["batch"]) == (SIZE, 1))
    times = {row["network"]: row["p50_ms"] for row in reversed(networks)}  # of several engines, the first
    ours = {name: load_weights(name) for name in OURS}
    figure = Figure(figsize=(9, 4), layout="constrained")
    by_size, by_time = figure.subplots(1, 2, sharey=True)
    for name, weights in ours.items():
        (miou,) = (m["miou"] for m in weights.metrics if (m["dataset"], m["split"]) == ("camvid", "test"))
        parameters = sum(p.numel() for p in weights.build().parameters()) / 1e6
        for axes, x in ((by_size, parameters), (by_time, times["ECMNet"])):
            axes.plot(x, 100 * miou, "o", color="tab:blue", markersize=8)
            axes.annotate(f"ours, {name}", (x, 100 * miou), (8, 0), textcoords="offset points", va="center")
    for peer in PUBLISHED:
        for axes, x in ((by_size, peer.parameters_m), (by_time, times.get(peer.network))):
            if x is not None:
                axes.plot(x, peer.miou, "o", color="0.4", markerfacecolor="none", markersize=8)
                axes.annotate(peer.network, (x, peer.miou), (8, 0), textcoords="offset points", va="center")
    for name in sorted(times.keys() - {p.network for p in PUBLISHED} - {"ECMNet", "ECMNet, plain"}):
        by_time.axvline(times[name], color="0.8", linewidth=1, zorder=0)
        by_time.annotate(
            f"{name} (none published)", (times[name], 74.4), rotation=90, fontsize=8, color="0.4", ha="right", va="top"
        )
    by_size.set(xlabel="parameters, millions", ylabel="mIoU on CamVid test, %", xlim=(0.55, 1.15), ylim=(65.5, 74.5))
    by_time.set(
        xlabel=f"milliseconds a picture of 360x480, {report['machine']}",
        xlim=(0, 1.4 * max(times["ECMNet"], times["LETNet"], times["SegFormer-B0"])),
    )
    figure.suptitle("Filled: measured here. Hollow: accuracy as its authors publish it.", fontsize=10)
    return svg_bytes(figure)


LAUNCHES = (
    ("initial block", 3),
    ("downsampling", 1),
    ("encoder, 1/4", 9),
    ("downsampling", 1),
    ("encoder, 1/8", 36),
    ("downsampling", 1),
    ("encoder, 1/16", 36),
    ("long connections", 9),
    ("FFM", 7),
    ("decoder", 30),
    ("classes of pixels", 1),
)
"""The kernels of the GPU engine in the order in which `FusedECMNet` launches them; all have the same few names."""


def microseconds(kernels: list[dict[str, Any]]) -> dict[str, float]:
    """What each layer group's kernels take, and what passes between kernels.

    Raises:
        ValueError: they are not those of `LAUNCHES`.
    """
    own = [k for k in kernels if not k["name"].startswith(("Mem", "void at::"))]  # copies, and the fill of the sums
    if len(own) != sum(count for _, count in LAUNCHES):
        raise ValueError(f"{len(own)} kernels, where LAUNCHES has {sum(count for _, count in LAUNCHES)}")
    spent: dict[str, float] = {}
    rest = iter(own)
    for group, count in LAUNCHES:
        spent[group] = spent.get(group, 0) + sum(next(rest)["us"] for _ in range(count))
    others = sum(k["us"] for k in kernels) - sum(k["us"] for k in own)
    last = max(kernels, key=lambda k: k["start"])
    between = last["start"] + last["us"] - sum(k["us"] for k in kernels)
    return spent | {"copies and fills": others, "between kernels": max(0.0, between)}


def draw_groups(report: dict[str, Any]) -> bytes:
    """Where the microseconds of one answer go, beside the roofline of each group. SVG."""
    shapes = [shape for shape in report["shapes"] if shape["batch"] == 1]
    shapes.sort(key=lambda shape: shape["size"])
    figure = Figure(figsize=(3.6 * len(shapes), 4), layout="constrained")
    for axes, shape in zip(figure.subplots(1, len(shapes), sharey=True, squeeze=False)[0], shapes, strict=True):
        spent = microseconds(shape["kernels"])
        rooflines = {g["group"]: 1e3 * max(g["memory_ms"], g["arithmetic_ms"]) for g in shape["groups"]}
        names = list(spent)[::-1]
        axes.barh(names, [spent[name] for name in names], color="tab:blue", label="measured")
        axes.barh(names, [rooflines.get(name, 0) for name in names], 0.3, color="tab:orange", label="roofline")
        axes.set_title("x".join(str(side) for side in shape["size"]), fontsize=10)
        axes.set_xlabel(f"microseconds, {sum(spent.values()):.0f} in all")
    figure.axes[0].legend(loc="lower right", frameon=False)
    figure.suptitle(report["machine"], fontsize=10)
    return svg_bytes(figure)


def group_table(shape: dict[str, Any]) -> str:
    """The roofline of each layer group, and what was measured where that is known. Markdown."""
    spent = microseconds(shape["kernels"]) if shape.get("kernels") else {}
    lines = [
        "| layer group | MB moved | at the copy's rate, us | GFLOP | at the product's rate, us | measured, us |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for g in shape["groups"]:
        measured = f"{spent[g['group']]:.0f}" if spent else ""
        lines.append(
            f"| {g['group']} | {g['megabytes']:.1f} | {1e3 * g['memory_ms']:.1f} | {g['gflops']:.2f} "
            f"| {1e3 * g['arithmetic_ms']:.1f} | {measured} |"
        )
    for name in spent.keys() - {g["group"] for g in shape["groups"]}:
        lines.append(f"| {name} | | | | | {spent[name]:.0f} |")
    return "\n".join(lines)


def main() -> None:
    """Read what was measured, write what it looks like."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=Path)
    parser.add_argument("--out", type=Path, default=Path("docs/performance"))
    args = parser.parse_args()
    report = json.loads(args.report.read_text())
    write_atomically(args.out / "accuracy.svg", draw_accuracy(report))
    if all(shape.get("kernels") for shape in report["shapes"]):
        write_atomically(args.out / "groups.svg", draw_groups(report))
    for shape in report["shapes"]:
        print(f"\n{shape['size'][0]}x{shape['size'][1]}, batch {shape['batch']}\n\n{group_table(shape)}")


if __name__ == "__main__":
    main()
