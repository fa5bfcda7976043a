"""Plots of the report as PNG bytes: transparent, in greys and hues that read on white and on black."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import imsave

from .curves import Curves, smoothed

VOI_LINES = {"voi_sum": "sum", "voi_split": "split (over-segmented)", "voi_merge": "merge (under-segmented)"}
OBJECT_LINES = {
    "panoptic_quality": "panoptic quality",
    "f1": "F1",
    "aggregated_jaccard": "aggregated Jaccard",
    "dice": "Dice",
}
INK = "#8a8f98"
HUES = ("#4c8dd6", "#e0823d", "#3da57a", "#b067c9", "#cf5467", "#9a8a3c", "#4aa8b8")
DOTS_PER_INCH = 180
SMOOTHING = 25
"""A loss is smoothed over this share of its records (one 25th)."""


def picture_png(image: np.ndarray) -> bytes:
    """(h, w, 3) or (h, w, 4) float in [0, 1] as PNG."""
    buffer = io.BytesIO()
    imsave(buffer, np.clip(image, 0, 1), format="png")
    return buffer.getvalue()


def sweep_png(scores: Mapping[str, Mapping[str, float]], best: str | None) -> bytes:
    """The scores against the merge threshold: VOI, and adapted Rand error or the scores of objects.

    Args:
        scores: per threshold `voi_split`, `voi_merge`, `voi_sum`, `adapted_rand_error`, and perhaps those of objects.
        best: the best threshold, marked by a line.
    """
    thresholds = sorted(scores, key=float)
    objects = all("panoptic_quality" in scores[threshold] for threshold in thresholds)
    rand = {"adapted_rand_error": "adapted Rand error"}
    panels = [(VOI_LINES, "variation of information (bits)"), (rand, "adapted Rand error")]
    if objects:
        panels = [(OBJECT_LINES, "mean over the images"), panels[0]]
    figure = Figure(figsize=(9.2, 3.3), layout="constrained")
    for axes, (lines, label) in zip(figure.subplots(1, 2), panels, strict=True):
        for index, (measure, name) in enumerate(lines.items()):
            values = [scores[threshold][measure] for threshold in thresholds]
            width = 2.4 if index == 0 else 1.5
            hue = HUES[3] if lines is rand else HUES[index]
            axes.plot([float(threshold) for threshold in thresholds], values, color=hue, label=name, linewidth=width)
        _dress(axes, "merge threshold", label)
        axes.set_ylim(bottom=0)
        if best is not None:
            axes.axvline(float(best), color=INK, linewidth=1, linestyle=(0, (4, 3)))
    return _png(figure)


def certainty_png(certainty: np.ndarray, voxel_size: Sequence[float]) -> bytes:
    """The least certain blocks seen along z and along y: a lower number is less sure.

    Args:
        certainty: (z, y, x) one per block; 0 where there is nothing, which stays empty.
        voxel_size: extent of a block in nanometres.
    """
    known = np.where(certainty > 0, certainty, np.nan)
    projections = {normal: np.fmin.reduce(known, axis=normal) for normal in (0, 1)}
    seen = np.concatenate([projection[np.isfinite(projection)] for projection in projections.values()])
    low, high = float(seen.min(initial=1)), float(seen.max(initial=0))
    figure = Figure(figsize=(9.2, 3.8), layout="constrained")
    for axes, (normal, name) in zip(figure.subplots(1, 2), ((0, "xy"), (1, "xz")), strict=True):
        worst = projections[normal]
        rows, columns = (axis for axis in range(3) if axis != normal)
        extent = [certainty.shape[axis] * voxel_size[axis] / 1000 for axis in (rows, columns)]
        shown = axes.imshow(worst, cmap="cividis", vmin=low, vmax=high, extent=(0, extent[1], extent[0], 0))
        _dress(axes, "x, µm", f"{'zyx'[rows]}, µm")
        axes.grid(visible=False)
        axes.set_title(f"{name}: the least certain block along {'zyx'[normal]}", color=INK, fontsize=9)
    bar = figure.colorbar(shown, ax=figure.axes, shrink=0.85, pad=0.02)
    bar.ax.tick_params(colors=INK, length=0)
    bar.set_label("certainty", color=INK)
    bar.outline.set_visible(False)
    return _png(figure)


def sizes_png(counts: Sequence[int], volumes: Sequence[int]) -> bytes:
    """How many segments there are of each size, and how much of the volume they hold.

    Args:
        counts: segments of 2^i to 2^(i+1) - 1 voxels, for i = 0, 1, …
        volumes: voxels of these.
    """
    edges, total = np.exp2(np.arange(len(counts))), max(1, sum(volumes))
    figure = Figure(figsize=(9.2, 3.0), layout="constrained")
    panels = ((counts, "segments", HUES[0]), (100 * np.array(volumes) / total, "share of the voxels, %", HUES[1]))
    for axes, (values, label, hue) in zip(figure.subplots(1, 2), panels, strict=True):
        axes.bar(edges, values, width=edges, align="edge", color=hue, alpha=0.85, edgecolor="none")
        axes.set_xscale("log")
        if values is counts:
            axes.set_yscale("log")
        _dress(axes, "size of a segment, voxels", label)
        axes.set_axisbelow(True)
    return _png(figure)


def curves_png(curves: Curves) -> bytes:
    """The loss with its terms, and next to it the validation measures if there are any."""
    with_validation = bool(len(curves.validation_iterations))
    figure = Figure(figsize=(9.2, 3.3), layout="constrained")
    axes = figure.subplots(1, 2)
    _plot_losses(axes[0], curves)
    if with_validation:
        shown = {name: values for name, values in curves.validations.items() if name != "threshold"}
        for hue, (name, values) in zip(HUES, shown.items(), strict=False):
            marker = "o" if len(values) < 40 else ""
            axes[1].plot(
                curves.validation_iterations, values, color=hue, marker=marker, markersize=4, label=_readable(name)
            )
        _dress(axes[1], "iteration", "validation")
        axes[1].set_ylim(bottom=0)
    else:
        axes[1].set_visible(False)
    return _png(figure)


def _plot_losses(axes: Axes, curves: Curves) -> None:
    window = max(1, len(curves.iterations) // SMOOTHING)
    positive = True
    for hue, (name, values) in zip(HUES, curves.losses.items(), strict=False):
        known = np.isfinite(values)
        x, y = curves.iterations[known], values[known]
        if name == "loss":
            axes.plot(x, y, color=hue, alpha=0.25, linewidth=1)
        axes.plot(x, smoothed(y, window), color=hue, linewidth=2.2 if name == "loss" else 1.4, label=_readable(name))
        positive = positive and bool(np.all(y > 0))
    if positive and len(curves.iterations):
        axes.set_yscale("log")
    _dress(axes, "iteration", "training loss")


def _readable(name: str) -> str:
    words = name.replace("_", " ").replace("/", " ")
    return "VOI" + words[3:] if words.startswith("voi") else words


def _dress(axes: Axes, x_label: str, y_label: str) -> None:
    """Style axes: no frame, light grid, grey text."""
    axes.set_facecolor("none")
    axes.set_xlabel(x_label, color=INK)
    axes.set_ylabel(y_label, color=INK)
    axes.tick_params(which="both", colors=INK, length=0)
    axes.grid(visible=True, color=INK, alpha=0.22, linewidth=0.7)
    for spine in axes.spines.values():
        spine.set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, labelcolor=INK, fontsize=8.5)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DOTS_PER_INCH, transparent=True)
    return buffer.getvalue()
