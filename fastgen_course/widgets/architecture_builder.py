"""An architecture builder: choose every decision; milliseconds are predicted, then measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import ipywidgets as widgets
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from fastgen_course.models.searched import Architecture
from fastgen_course.search.latency import LatencyTable, time_networks
from fastgen_course.search.space import SPACE, SearchSpace
from fastgen_course.show import PALETTE
from fastgen_course.widgets.pictures import error_html, figure_png, status_html

Predictor = Callable[[Architecture], float]
REPEATS = 40


def measured_ms(config: Architecture) -> float:
    """Milliseconds of an architecture here and now: ONNX Runtime, one thread, batch 1."""
    return time_networks([config], REPEATS)[0]


def layers_figure(
    table: LatencyTable, configs: Sequence[tuple[str, Architecture]],
    measured: Sequence[float] | None = None,
) -> Figure:  # fmt: skip
    """Predicted milliseconds of networks, layer by layer, stacked; a mark where it was measured.

    Raises ValueError for no networks.
    """
    if not configs:
        raise ValueError("layers_figure got no networks; pass [(name, architecture), ...].")
    fig, axis = plt.subplots(figsize=(7.2, 0.7 + 0.5 * len(configs)))
    names: list[str] = []
    for row, (_, config) in enumerate(configs):
        left = 0.0
        for name, ms in table.contributions(config).items():
            if name not in names:
                names.append(name)
            colour = plt.colormaps["tab10"](names.index(name) % 10)
            axis.barh(row, ms, left=left, color=colour, height=0.6)
            left += ms
        axis.plot([table(config)] * 2, [row - 0.4, row + 0.4], color="black", lw=1.5)
        if measured is not None:
            axis.plot(measured[row], row, "D", color=PALETTE[1], ms=5, mec="white")
    axis.set(yticks=range(len(configs)), yticklabels=[name for name, _ in configs],
             xlabel="ms by layer; line: predicted for the network"
             + ("; diamond: measured" if measured is not None else ""))  # fmt: skip
    axis.invert_yaxis()
    for index, name in enumerate(names):
        axis.barh(0, 0, color=plt.colormaps["tab10"](index % 10), label=name)
    axis.set_xlim(left=0)
    axis.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return fig


class ArchitectureBuilder(widgets.VBox):
    """A control for each decision; below, what the table predicts and this machine measures."""

    def __init__(
        self,
        table: LatencyTable,
        quality: Predictor | None = None,
        space: SearchSpace = SPACE,
        measure: Predictor = measured_ms,
    ) -> None:
        self.table, self.quality, self.space, self.measure = table, quality, space, measure
        self._measured: dict[Architecture, float] = {}
        narrow = {"layout": widgets.Layout(width="21em"), "continuous_update": False}
        self.controls: dict[str, widgets.Widget] = {}
        for decision in space.decisions:
            options = [(str(option), i) for i, option in enumerate(decision.options)]
            self.controls[decision.name] = widgets.SelectionSlider(
                options=options, value=len(options) // 2 if "width" in decision.name else 0,
                description=decision.name, style={"description_width": "8em"}, **narrow,
            )  # fmt: skip
        for control in self.controls.values():
            control.observe(self.redraw, "value")
        self.again = widgets.Button(description="measure again")
        self.again.on_click(self.measure_again)
        self.picture = widgets.Image(format="png", width=620)
        self.status = widgets.HTML()
        grid = widgets.GridBox(
            list(self.controls.values()),
            layout=widgets.Layout(grid_template_columns="repeat(2, 22em)"),
        )
        super().__init__([grid, self.again, self.picture, self.status])
        self.redraw()

    @property
    def config(self) -> Architecture:
        """The architecture that the controls say."""
        return self.space.decode([control.value for control in self.controls.values()])

    def measure_again(self, _event: object = None) -> None:
        """Forget what was measured of this architecture and measure it anew."""
        self._measured.pop(self.config, None)
        self.redraw()

    def redraw(self, _event: object = None) -> None:
        """Predict, measure and draw the architecture of the controls."""
        try:
            config = self.config
            if config not in self._measured:
                self._measured[config] = self.measure(config)
            ms, predicted = self._measured[config], self.table(config)
            fig = layers_figure(self.table, [("yours", config)], [ms])
        except (ValueError, OSError) as error:
            self.status.value = error_html(error)
            return
        self.picture.value = figure_png(fig, 1.6)
        words = (
            f"predicted {predicted:.3f} ms, measured {ms:.3f} ms ({(predicted - ms) / ms:+.0%}); "
            f"{config.macs() / 1e6:.2f} million MACs, {2 * config.parameters() / 1e6:.2f} MB"
        )
        if self.quality is not None:
            words += f"; predicted distance {self.quality(config):.3f}"
        self.status.value = status_html(words)


def architecture_builder(
    table: LatencyTable | None = None, quality: Predictor | None = None
) -> ArchitectureBuilder:
    """An `ArchitectureBuilder` on the recorded latency table; display it to use it."""
    return ArchitectureBuilder(table or LatencyTable.load(), quality)


def some_layers_figure(table: LatencyTable, space: SearchSpace = SPACE) -> tuple[Figure, str]:
    """The static figure beside the builder, measured now, and its words."""
    configs = [("largest", space.largest()), ("smallest", space.smallest())]
    configs += [(f"random {i}", c) for i, c in enumerate(space.samples(3, seed=12))]
    ms = time_networks([c for _, c in configs], REPEATS)
    errors = [abs(table(c) - m) / m for (_, c), m in zip(configs, ms, strict=True)]
    rows = ", ".join(
        f"{name} {table(c):.3f} predicted and {m:.3f} measured"
        for (name, c), m in zip(configs, ms, strict=True)
    )
    words = f"Milliseconds by layer of five networks: {rows}; median error {np.median(errors):.0%}."
    return layers_figure(table, configs, ms), words
