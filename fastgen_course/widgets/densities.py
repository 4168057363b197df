"""D* against two movable densities: what the best discriminator sees, how far apart they are."""

from __future__ import annotations

import base64
import html
import math
from dataclasses import dataclass

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from torch import Tensor

from fastgen_course.show import PALETTE, figure_png
from fastgen_course.training.gan_theory import (
    gaussian_mixture,
    generator_gradient,
    jensen_shannon,
    kl_divergence,
    optimal_discriminator,
)

LOW, HIGH, POINTS = -8.0, 8.0, 1601


@dataclass(frozen=True)
class Densities:
    """Data: two Gaussians of deviation 0.6. Model: one Gaussian.

    Attributes:
        gap: distance between the two modes of the data, centred on 0; 0 to 8.
        mean: of the model, -4 to 4.
        std: of the model, above 0.
    """

    gap: float = 4.0
    mean: float = 0.0
    std: float = 1.0

    def grid(self) -> tuple[Tensor, Tensor, Tensor, float]:
        """x, p_data(x), p_model(x), each (1601,) float64, and the spacing of x."""
        x = torch.linspace(LOW, HIGH, POINTS, dtype=torch.float64)
        p_data = gaussian_mixture(x, [-self.gap / 2, self.gap / 2], [0.6, 0.6])
        return x, p_data, gaussian_mixture(x, [self.mean], [self.std]), (HIGH - LOW) / (POINTS - 1)

    def figures(self) -> dict[str, float]:
        """JSD, C(G) and KL(model || data) in nats, and the slopes of both losses in the mean."""
        x, p, q, dx = self.grid()
        jsd = jensen_shannon(p, q, dx).item()
        # The logit of D* is log p - log q; far out p underflows long before the product matters.
        logits = p.clamp(min=1e-300).log() - q.clamp(min=1e-300).log()
        score = (x - self.mean) / self.std**2  # d log p_model / d mean
        return {
            "jsd": jsd,
            "cost": -math.log(4) + 2 * jsd,
            "kl": kl_divergence(q, p.clamp(min=1e-300), dx).item(),
            "saturating": generator_gradient(logits, q, score, dx, saturating=True).item(),
            "nonsaturating": generator_gradient(logits, q, score, dx, saturating=False).item(),
        }


def density_figure(state: Densities) -> Figure:
    """Two panels: both densities with D*, and the four figures as text below."""
    x, p, q, _ = state.grid()
    fig, axis = plt.subplots(figsize=(7, 3.2))
    axis.fill_between(x, p, color=PALETTE[0], alpha=0.25)
    axis.fill_between(x, q, color=PALETTE[1], alpha=0.25)
    axis.plot(x, p, color=PALETTE[0], label="data p(x)")
    axis.plot(x, q, color=PALETTE[1], label="model p_g(x)")
    axis.plot(x, optimal_discriminator(p, q), color=PALETTE[6], ls="--", label="D*(x)")
    axis.axhline(0.5, color=PALETTE[6], lw=0.6)
    axis.set(xlabel="x", ylabel="density, and D*", ylim=(-0.02, 1.08), xlim=(-7, 7))
    axis.legend(loc="upper left", bbox_to_anchor=(1, 1))
    axis.set_title(density_reading(state).split(".  ")[0], fontsize=9)
    return fig


def density_reading(state: Densities) -> str:
    """The figures in one line of words."""
    f = state.figures()
    return (
        f"JSD = {f['jsd']:.3f} of at most ln 2 = {math.log(2):.3f} nats, "
        f"C(G) = {f['cost']:.3f}, KL(p_g || p) = {f['kl']:.3f}.  "
        f"Slopes in the model's mean: {f['saturating']:+.4f} saturating, "
        f"{f['nonsaturating']:+.4f} non-saturating."
    )


def density_words(state: Densities) -> str:
    """The figure in words, for a reader who cannot see it."""
    return (
        f"Density of the data, two Gaussians {state.gap:g} apart, density of the model, one "
        f"Gaussian at {state.mean:g} with deviation {state.std:g}, and the best discriminator "
        "between 0 and 1, high where the data are denser and low where the model is. "
        + density_reading(state)
    )


def density_explorer(start: Densities | None = None):
    """Three sliders over the same figure: the gap of the data, mean and deviation of the model.

    Returns an ipywidgets box.
    """
    import ipywidgets as widgets

    start = start or Densities()

    def slider(name: str, low: float, high: float, value: float) -> widgets.FloatSlider:
        return widgets.FloatSlider(
            value=value,
            min=low,
            max=high,
            step=0.1,
            description=name,
            continuous_update=False,
            style={"description_width": "9em"},
            layout={"width": "26em"},
        )

    gap = slider("data: gap", 0, 8, start.gap)
    mean = slider("model: mean", -4, 4, start.mean)
    std = slider("model: deviation", 0.2, 3, start.std)
    picture, words = widgets.HTML(), widgets.HTML()

    def redraw(_change: object = None) -> None:
        state = Densities(gap.value, mean.value, std.value)
        png = base64.b64encode(figure_png(density_figure(state))).decode()
        alt = html.escape(density_words(state), quote=True)
        picture.value = f'<img alt="{alt}" width="560" src="data:image/png;base64,{png}">'
        words.value = html.escape(density_reading(state))

    for control in (gap, mean, std):
        control.observe(redraw, "value")
    redraw()
    return widgets.VBox([gap, mean, std, picture, words])
