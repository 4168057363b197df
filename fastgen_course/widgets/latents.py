"""Latent sliders ordered by what each latent carries, and the static traversal beside them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from matplotlib.figure import Figure
from torch import Tensor

from fastgen_course.models.vae import ConvVAE
from fastgen_course.sampling.vae import sample_vae, traverse
from fastgen_course.show import image_grid, to_uint8
from fastgen_course.widgets.pictures import error_html, picture_png, status_html

LIMIT = 3.0  # standard deviations of the prior to either side


def latent_order(usage: Tensor) -> list[int]:
    """Latents by falling KL: usage (latent,) in nats -> their numbers."""
    return torch.argsort(usage, descending=True, stable=True).tolist()


def place_in_prior(model: ConvVAE, offsets: Tensor, words: Tensor | None = None) -> Tensor:
    """Offsets (latent,) in standard deviations of the prior to z (latent,)."""
    mu, logvar = model.prior(offsets[None], words)
    return (mu + (0.5 * logvar).exp() * offsets)[0]


@torch.inference_mode()
def traversal_figure(
    model: ConvVAE,
    usage: Tensor,
    start: Tensor | None = None,
    *,
    words: Tensor | None = None,
    rows: Sequence[int] | None = None,
    columns: int = 9,
) -> Figure:
    """One row a latent: the picture as that latent alone runs from -3 to +3 standard deviations.

    Args:
        model: a ConvVAE in eval mode.
        usage: KL of each latent (latent,) in nats; names and orders the rows.
        start: (latent,) in standard deviations of the prior; None is its mean.
        words: (1, W), the caption of a model with captions.
        rows: which latents; None takes the five most used and the least used.
        columns: pictures a row.
    """
    order = latent_order(usage)
    chosen = list(rows) if rows is not None else [*order[:5], order[-1]]
    start = torch.zeros(model.config.latent) if start is None else start
    steps = torch.linspace(-LIMIT, LIMIT, columns)
    pictures = []
    for index in chosen:
        ends = start.repeat(columns, 1)
        ends[:, index] = steps
        z = torch.stack([place_in_prior(model, row, words) for row in ends])
        pictures.append(traverse(model, z[0], index, z[:, index].tolist(), words))
    return image_grid(
        torch.cat(pictures),
        columns,
        row_labels=[f"z[{i}]  {float(usage[i]):.2f} nats" for i in chosen],
    )


def latent_sliders(
    model: ConvVAE,
    usage: Tensor,
    *,
    words: Tensor | None = None,
    count: int = 6,
    enlarge: int = 8,
):  # type: ignore[no-untyped-def]
    """Sliders for the `count` latents that carry most, and the picture they decode to.

    Args:
        model: a ConvVAE in eval mode.
        usage: KL of each latent (latent,), in nats: the order of the sliders.
        words: (1, W), the caption of a model with captions.
        count: how many sliders; the other latents stay at the start picture's values.
        enlarge: size of a pixel on the screen.

    Returns an ipywidgets box; every slider moves its latent by standard deviations of the prior.
    Raises ValueError for a usage of another length or a count below 1.
    """
    import ipywidgets as widgets

    if len(usage) != model.config.latent or count < 1:
        raise ValueError(
            f"latent_sliders needs one usage a latent ({model.config.latent}) and at least one "
            f"slider, got {len(usage)} and {count}."
        )
    order = latent_order(usage)[:count]
    generator = torch.Generator().manual_seed(0)
    state = {"start": torch.zeros(model.config.latent), "quiet": False}
    sliders = [
        widgets.FloatSlider(
            value=0.0,
            min=-LIMIT,
            max=LIMIT,
            step=0.25,
            description=f"z[{index}], {float(usage[index]):.2f} nats",
            readout_format=".2f",
            style={"description_width": "9em"},
            layout=widgets.Layout(width="26em"),
        )
        for index in order
    ]
    picture = widgets.Image(
        format="png", width=28 * enlarge, height=28 * enlarge, layout=widgets.Layout(margin="8px")
    )
    said = widgets.HTML()

    def redraw(_change: object = None) -> None:
        if state["quiet"]:
            return
        try:
            offsets = state["start"].clone()
            for index, slider in zip(order, sliders, strict=True):
                offsets[index] = slider.value
            with torch.inference_mode():
                image = sample_vae(model, words, noise=offsets[None])[0]
            picture.value = picture_png(to_uint8(image), enlarge)
            length = float(offsets.norm())
            said.value = status_html(
                f"z is {length:.1f} standard deviations from the prior's mean; draws from the "
                f"prior lie near {model.config.latent**0.5:.1f}."
            )
        except Exception as error:  # a callback's traceback would be lost in the log
            said.value = error_html(error)

    def restart(start: Tensor) -> None:
        state.update(start=start, quiet=True)
        for index, slider in zip(order, sliders, strict=True):
            slider.value = float(start[index].clamp(-LIMIT, LIMIT))
        state["quiet"] = False
        redraw()

    fresh = widgets.Button(description="another picture", tooltip="Draw a new z from the prior")
    mean = widgets.Button(description="the prior's mean", tooltip="Put every latent to its mean")
    fresh.on_click(lambda _: restart(torch.randn(model.config.latent, generator=generator)))
    mean.on_click(lambda _: restart(torch.zeros(model.config.latent)))
    for slider in sliders:
        slider.observe(redraw, "value")
    redraw()
    left = widgets.VBox([*sliders, widgets.HBox([fresh, mean])])
    return widgets.VBox([widgets.HBox([left, picture]), said])
