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
from matplotlib.ticker import FixedLocator, FormatStrFormatter, NullLocator

from ecmnet_app.core.weights import load_weights
from ecmnet_app.media.files import write_atomically
from ecmnet_app.network.traffic import GROUPS
from ecmnet_app.training.figures import svg_bytes

OURS = ("camvid", "street", "camvid-scratch")
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
        by_time.annotate(name, (times[name], 65.6), rotation=90, fontsize=8, color="0.4", ha="right", va="bottom")
    by_size.set(xlabel="parameters, millions", ylabel="mIoU on CamVid test, %", xlim=(0.55, 1.15), ylim=(65.5, 74.5))
    by_time.set(xlabel=f"p50 of a picture of 360x480, ms, {report['machine']}", xscale="log")
    by_time.set_xlim(0.8 * min(times.values()), 2 * max(times[name] for name in times if name != "ECMNet, plain"))
    by_time.xaxis.set_major_locator(FixedLocator([0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500]))
    by_time.xaxis.set_minor_locator(NullLocator())
    by_time.xaxis.set_major_formatter(FormatStrFormatter("%g"))
    figure.suptitle(
        "Filled: measured here. Hollow: accuracy as its authors publish it. Lines: they publish none for CamVid.",
        fontsize=10,
    )
    return svg_bytes(figure)


CHAIN = (
    ("initial block", 3),
    ("downsampling", 1),
    ("encoder, 1/4", 9),
    ("downsampling", 1),
    ("encoder, 1/8", 36),
    ("downsampling", 1),
    ("encoder, 1/16", 36),
    ("FFM", 5),
    ("decoder", 30),
    ("classes of pixels", 1),
)
"""The kernels of `FusedECMNet` in the order of their launch, most of them of one name, without the long connections."""
ASIDE = ("_connect", "_look", "_refine")
"""The kernels of a long connection, which run beside the encoder..."""
BROUGHT_DOWN = (2, 1, 0)
"""...and how many of the FFM's convolutions follow on the stream of each, from 1/4 to 1/16."""


def microseconds(kernels: list[dict[str, Any]]) -> dict[str, float]:
    """What the kernels of each layer group take; some of them run side by side.

    Raises:
        ValueError: they are not those of `CHAIN` and the long connections.
    """
    spent = dict.fromkeys((*GROUPS.values(), "copies and fills"), 0.0)
    chain = [group for group, count in CHAIN for _ in range(count)]
    position = connections = 0
    following: dict[int, int] = {}  # by stream: convolutions of the FFM that are still to come
    for kernel in kernels:
        name, stream = kernel["name"], kernel["stream"]
        if name.startswith(("Mem", "void at::")):
            group = "copies and fills"
        elif name in ASIDE:
            group = "long connections"
            if name == "_refine":
                following[stream] = BROUGHT_DOWN[connections]
                connections += 1
        elif following.get(stream, 0):
            group = "FFM"
            following[stream] -= 1
        else:
            group = chain[position] if position < len(chain) else ""
            position += 1
        if group:
            spent[group] += kernel["us"]
    if position != len(chain) or connections != len(BROUGHT_DOWN):
        raise ValueError(
            f"{position} kernels and {connections} long connections, where the engine has {len(chain)} and 3"
        )
    return spent


def idle(kernels: list[dict[str, Any]]) -> float:
    """Microseconds from the first kernel to the end of the last in which none runs."""
    found = [k for k in kernels if not k["name"].startswith("Mem")]  # the picture's copy comes before the graph
    now, waited = found[0]["start"], 0.0
    for kernel in found:
        waited += max(0.0, kernel["start"] - now)
        now = max(now, kernel["start"] + kernel["us"])
    return waited


def draw_groups(report: dict[str, Any]) -> bytes:
    """Where the microseconds of one answer go, beside the roofline of each group. SVG."""
    shapes = [shape for shape in report["shapes"] if shape["batch"] == 1]
    shapes.sort(key=lambda shape: shape["size"])
    figure = Figure(figsize=(3.6 * len(shapes), 4), layout="constrained")
    for axes, shape in zip(figure.subplots(1, len(shapes), sharey=True, squeeze=False)[0], shapes, strict=True):
        spent = microseconds(shape["kernels"]) | {"no kernel runs": idle(shape["kernels"])}
        rooflines = {g["group"]: 1e3 * max(g["memory_ms"], g["arithmetic_ms"]) for g in shape["groups"]}
        names = list(spent)[::-1]
        axes.barh(names, [spent[name] for name in names], color="tab:blue", label="measured")
        axes.barh(names, [rooflines.get(name, 0) for name in names], 0.3, color="tab:orange", label="roofline")
        axes.set_title("x".join(str(side) for side in shape["size"]), fontsize=10)
        ours = next(row["in_a_row_ms"] for row in shape["networks"] if row["network"] == "ECMNet")
        axes.set_xlabel(f"microseconds; {1e3 * ours:.0f} for an answer")
    figure.axes[0].legend(loc="lower right", frameon=False)
    figure.suptitle(report["machine"], fontsize=10)
    return svg_bytes(figure)


def group_table(shape: dict[str, Any]) -> str:
    """The roofline of each layer group, and what was measured where that is known. Markdown."""
    spent = microseconds(shape["kernels"]) if shape.get("kernels") else {}
    if spent:
        spent["no kernel runs"] = idle(shape["kernels"])
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
    named = {g["group"] for g in shape["groups"]}
    lines += [f"| {name} | | | | | {us:.0f} |" for name, us in spent.items() if name not in named]
    return "\n".join(lines)


def race_table(report: dict[str, Any]) -> str:
    """Everybody at every shape: p50 of single answers, and of many in a row. Markdown."""
    shapes = sorted(report["shapes"], key=lambda shape: (shape["batch"], shape["size"]))
    titles = [f"{s['size'][0]}x{s['size'][1]}" + (f", {s['batch']} pictures" * (s["batch"] > 1)) for s in shapes]
    lines = [f"| network | how | {' | '.join(titles)} |", f"|---|---|{'--:|' * len(shapes)}"]
    for rows in zip(*(shape["networks"] for shape in shapes), strict=True):
        cells = [f"{row['p50_ms']:.2f} / {row['in_a_row_ms']:.2f}" for row in rows]
        lines.append(f"| {rows[0]['network']} | {rows[0]['form']} | {' | '.join(cells)} |")
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
    print(race_table(report))
    for shape in report["shapes"]:
        print(f"\n{shape['size'][0]}x{shape['size'][1]}, batch {shape['batch']}\n\n{group_table(shape)}")


if __name__ == "__main__":
    main()
