"""The editor: a request drawn as four variants, one chosen, then edited by words or a mask."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import anywidget
import ipywidgets as widgets
import matplotlib.pyplot as plt
import torch
import traitlets
from matplotlib.figure import Figure

from fastgen_course.datasets.captions import render
from fastgen_course.language.assistant import PictureEdit
from fastgen_course.language.designer import VARIANTS, Designer, Turn
from fastgen_course.show import PALETTE, image_grid, to_uint8
from fastgen_course.widgets.pictures import error_html, picture_png, status_html

REQUEST = "crimson trainers, nothing behind them"
SIDE = 7  # a picture is 7x7 words, and a mask hides words
_HERE = Path(__file__).parent


class RequestLine(anywidget.AnyWidget):
    """A text field and its button. `sent`: the words of the last press, and how many presses.

    `text` follows the field; a press takes its words along, so that none is lost on the way.
    """

    _esm = (_HERE / "request_line.js").read_text(encoding="utf-8")
    label = traitlets.Unicode().tag(sync=True)
    placeholder = traitlets.Unicode().tag(sync=True)
    button = traitlets.Unicode().tag(sync=True)
    text = traitlets.Unicode().tag(sync=True)
    sent = traitlets.Dict().tag(sync=True)
    disabled = traitlets.Bool(False).tag(sync=True)

    def press(self, words: str | None = None) -> None:
        """What Enter does: send `words`, those in the field if None."""
        words = self.text if words is None else words
        self.sent = {"words": words, "count": self.sent.get("count", 0) + 1}


class VariantPicker(anywidget.AnyWidget):
    """Pictures as buttons; `chosen` is the pressed one's number, -1 for none."""

    _esm = (_HERE / "variant_picker.js").read_text(encoding="utf-8")
    pictures = traitlets.List(traitlets.Bytes()).tag(sync=True)
    labels = traitlets.List(traitlets.Unicode()).tag(sync=True)
    chosen = traitlets.Int(-1).tag(sync=True)
    disabled = traitlets.Bool(False).tag(sync=True)


class MaskPainter(anywidget.AnyWidget):
    """A picture whose places are marked by dragging over them; `hidden` are those marked."""

    _esm = (_HERE / "mask_painter.js").read_text(encoding="utf-8")
    picture = traitlets.Bytes(b"").tag(sync=True)
    side = traitlets.Int(SIDE).tag(sync=True)
    hidden = traitlets.List(traitlets.Int(min=0, max=SIDE**2 - 1)).tag(sync=True)
    disabled = traitlets.Bool(True).tag(sync=True)

    @property
    def mask(self) -> torch.Tensor:
        """The marked places, bool (7, 7)."""
        mask = torch.zeros(self.side**2, dtype=torch.bool)
        mask[self.hidden] = True
        return mask.view(self.side, self.side)


class DesignEditor(widgets.VBox):
    """The fashion-design assistant at the reader's hand.

    Args:
        designer: what draws and edits; a `Designer` around the process's models if None.
        request: what stands in the field at first; it is drawn at once.
        seed: where the seed's slider starts.
        seeds: the slider runs from 0 to seeds - 1.

    Whatever goes wrong becomes one sentence in the widget, never a traceback, and what lies on the
    table stays. While it works its controls are locked and the status says what it does. Raises
    ValueError for a seed off the slider.
    """

    def __init__(
        self,
        designer: Designer | None = None,
        request: str = REQUEST,
        seed: int = 0,
        seeds: int = 100,
    ) -> None:
        if not 0 <= seed < seeds:
            raise ValueError(f"seed must be 0 to {seeds - 1}, got {seed}.")
        self.designer = Designer() if designer is None else designer
        self._build(request, seed, seeds)
        masking = widgets.HBox([self.repaint_button, self.clear_button, self.undo_button])
        hint = widgets.HTML(
            status_html("Drag over the picture to mark what is drawn anew, then press Redraw.")
        )
        right = widgets.VBox([self.words, hint, masking, self.status, self.history])
        table = widgets.HBox([self.mask, right])
        super().__init__([self.request, self.seed, self.picker, table])
        self.draw()

    def _build(self, request: str, seed: int, seeds: int) -> None:
        self.request = RequestLine(label="request", button="Draw four", text=request)
        self.seed = widgets.IntSlider(
            value=seed, min=0, max=seeds - 1, description="seed", continuous_update=False
        )
        self.picker, self.mask = VariantPicker(), MaskPainter()
        self.words = RequestLine(
            label="edit", button="Edit", placeholder="make it green and draw it as a sketch"
        )
        self.repaint_button = widgets.Button(
            description="Redraw marked", tooltip="Draw the marked places anew"
        )
        self.clear_button = widgets.Button(description="Clear marks")
        self.undo_button = widgets.Button(description="Undo", tooltip="Take the last step back")
        self.status, self.history = widgets.HTML(), widgets.HTML()
        self.request.observe(partial(self._sent, self.draw), "sent")
        self.words.observe(partial(self._sent, self.edit), "sent")
        self.repaint_button.on_click(self.repaint)
        self.clear_button.on_click(self.clear)
        self.undo_button.on_click(self.undo)
        self.seed.observe(self.draw, "value")
        self.picker.observe(self._choose, "chosen")

    def draw(self, _event: object = None) -> None:
        """Four variants of what the request says."""
        self._do("Drawing", lambda: self.designer.ask(self.request.text, self.seed.value))

    def edit(self, _event: object = None) -> None:
        """Change the chosen variant as the edit's words say."""
        self._do("Editing", lambda: self.designer.refine(self.words.text, self.seed.value))

    def repaint(self, _event: object = None) -> None:
        """Draw the marked places anew, to fit the rest and the edit's words if there are any."""
        mask, words = self.mask.mask, self.words.text
        # Another drawing each time: the same seed would give the same places again.
        seed = self.seed.value + len(self.designer.turns)
        self._do("Drawing the marked places", lambda: self.designer.repaint(mask, words, seed))

    def undo(self, _event: object = None) -> None:
        """Take the last step back."""
        self._do("Going back", self.designer.undo)

    def clear(self, _event: object = None) -> None:
        """Forget the marks."""
        self.mask.hidden = []

    def _choose(self, change: dict) -> None:
        turns = self.designer.turns
        if change["new"] < 0 or (turns and turns[-1].chosen == change["new"]):
            return  # set by `refresh`
        words = self.words.text
        self._do("Choosing", lambda: self.designer.choose(change["new"]))
        self.words.text = words

    def _sent(self, act: Callable[[], None], change: dict) -> None:
        change["owner"].text = change["new"]["words"]
        act()

    def _do(self, doing: str, action: Callable[[], object]) -> None:
        """Lock the controls, act, show what lies on the table; an error becomes one sentence."""
        self._lock(True)
        self.status.value = status_html(f"{doing} …")
        try:
            action()
            self.words.text, self.mask.hidden = "", []
            self.refresh()
        except Exception as error:  # a reader's words, or weights that are missing
            self.status.value = error_html(error)
        finally:
            self._lock(False)

    def _lock(self, busy: bool) -> None:
        turns = self.designer.turns
        chosen = bool(turns) and turns[-1].chosen is not None
        for control in (self.request, self.seed, self.picker):
            control.disabled = busy
        edits = (self.words, self.repaint_button, self.clear_button, self.mask)
        for control in edits:
            control.disabled = busy or not chosen
        self.undo_button.disabled = busy or not turns

    def refresh(self) -> None:
        """Show the designer's table: pictures, marks, status and history."""
        turns = self.designer.turns
        if not turns:
            self.picker.pictures, self.picker.labels, self.picker.chosen = [], [], -1
            self.mask.picture, self.history.value = b"", ""
            self.status.value = status_html("Nothing is drawn; say what to draw.")
            return
        now = turns[-1]
        pictures = to_uint8(now.images)
        self.picker.labels = [render(y) for y in now.found]
        self.picker.pictures = [picture_png(picture, 1) for picture in pictures]
        self.picker.chosen = -1 if now.chosen is None else now.chosen
        self.mask.picture = b"" if now.chosen is None else picture_png(pictures[now.chosen], 1)
        self.status.value = status_html(turn_line(now))
        self.history.value = _history_html(turns)


def design_editor(designer: Designer | None = None, **options: str | int) -> DesignEditor:
    """A `DesignEditor`; display it to use it. Options: request, seed, seeds."""
    return DesignEditor(designer, **options)


def turn_line(turn: Turn) -> str:
    """What is said of a turn: who answered, what it understood, how it drew."""
    choose = "" if turn.chosen is not None else " Click the one to go on with."
    return (
        f"Answered by: {turn.answered_by}. {turn.note} "
        f"({turn.way}, {turn.draw_ms:.0f} ms, one reading.){choose}"
    )


def _history_html(turns: Sequence[Turn]) -> str:
    lines = [
        f"<li>{html.escape(turn.request or 'marked places')}: {html.escape(turn.way)} "
        f"({html.escape(turn.answered_by)})</li>"
        for turn in turns
    ]
    return f'<ol style="margin:0;font-size:12px">{"".join(lines)}</ol>'


# --- static figures -----------------------------------------------------------------------------


def turns_figure(turns: Sequence[Turn]) -> Figure:
    """The static figure beside the editor: a row a turn, the chosen variant framed.

    Raises ValueError for no turns.
    """
    if not turns:
        raise ValueError("there are no turns to show; ask the designer for something first.")
    images = torch.cat([turn.images for turn in turns])
    labels = [_wrapped(turn.request or "(marked places)", turn.answered_by) for turn in turns]
    fig = image_grid(images, VARIANTS, row_labels=labels, scale=1.3)
    for row, turn in enumerate(turns):
        if turn.chosen is not None:
            axis = fig.axes[VARIANTS * row + turn.chosen]
            box = plt.Rectangle((-0.5, -0.5), 28, 28, fill=False, ec=PALETTE[0], lw=3)
            box.set_clip_on(False)
            axis.add_patch(box)
    return fig


def edits_figure(edits: Sequence[PictureEdit]) -> Figure:
    """Pictures above, what became of them below, the request and the way as titles.

    Raises ValueError for no edits.
    """
    if not edits:
        raise ValueError("there are no edits to show; make one with edit_picture.")
    images = torch.stack([e.source for e in edits] + [e.image for e in edits])
    titles = [e.request or "(marked places)" for e in edits]
    titles += [f"{e.way} ({e.answered_by})" for e in edits]
    return image_grid(images, len(edits), titles, scale=1.5, row_labels=["before", "after"])


def _wrapped(request: str, answered_by: str) -> str:
    import textwrap

    return "\n".join([*textwrap.wrap(request, 26), f"({answered_by})"])
