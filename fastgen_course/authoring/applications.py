"""notebooks/APPLICATIONS.md: its tables and the sentences with figures, from the registry alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from fastgen_course.authoring.readme import NOT_RECORDED, replace_parts
from fastgen_course.files import atomic_write
from fastgen_course.timing.results import Result, all_results

PAGE = Path("notebooks") / "APPLICATIONS.md"
SHOWN, ANALOGOUS, OUT = "shown here", "analogous", "out of scope"


@dataclass(frozen=True)
class Use:
    """One use that people have for such systems.

    Attributes:
        name: what people call it.
        status: SHOWN (with a measurement), ANALOGOUS (the same method, not measured for this use)
            or OUT.
        text: what is shown, what carries over, or why it does not.
        figures: (words, recorded name) of each figure that the row quotes.
    """

    name: str
    status: str
    text: str
    figures: tuple[tuple[str, str], ...] = ()


USES = (
    Use(
        "Design assistant",
        SHOWN,
        "[notebook 06](06_describe_and_edit.ipynb): a request in free words is read by a language "
        "model and drawn, this garment kept.",
        (
            ("requests understood", "language_edit.exact"),
            ("edits made", "edit.changed"),
            ("overlap with the exact target", "edit.silhouette_iou"),
        ),
    ),
    Use(
        "Augmentation for a classifier with 100 images a class",
        SHOWN,
        "[below](#augmentation), against no augmentation, flips and shifts, and three controls.",
        (
            ("accuracy without", "applications_augmentation.accuracy.plain"),
            ("with flips, shifts and drawings", "applications_augmentation.accuracy.both"),
        ),
    ),
    Use(
        "Inpainting and repair",
        SHOWN,
        "[below](#inpainting): lost parts of real pictures drawn again.",
        (
            ("all five attributes found, middle lost", "applications_inpainting.exact_accuracy"
             ".middle.masked"),
            ("in the undamaged pictures", "applications_inpainting.exact_accuracy.real"),
        ),
    ),
    Use(
        "Segmentation",
        SHOWN,
        "[notebook 06](06_describe_and_edit.ipynb): a head on the editor marks the garment from "
        "the 49 image tokens. The true mask is known, because a program made the scene.",
        (
            ("overlap with the true mask", "applications_segmentation.overlap_share.mask_head"),
            ("the rule made for these scenes", "applications_segmentation.overlap_share.rule"),
            ("every pixel marked", "applications_segmentation.overlap_share.everywhere"),
        ),
    ),
    Use(
        "Privacy",
        SHOWN,
        "[below](#membership): can an attacker tell which photographs a generator was trained on? "
        "[And](#privacy) what a promise of privacy costs a classifier.",
        (
            ("white-box attack on GENERATOR_BASE, AUC", "applications_membership.auc.noise"),
            ("the same attack on its control", "applications_membership.auc.noise_control"),
        ),
    ),
    Use(
        "Games and VR assets",
        ANALOGOUS,
        "A game draws icons and textures from a caption as notebook 14's page does: in the "
        "player's own browser, without a server. Not measured here: meshes, tiling textures, "
        "consistency between views. A renderer at 90 frames a second leaves 11 ms for everything.",
        (
            ("drawn in the browser with WASM", "browser.wasm_pictures_per_s"),
            ("drawn there against drawn here, largest difference", "browser.max_abs_difference"),
        ),
    ),
    Use(
        "Advertising",
        ANALOGOUS,
        "Many variants of one product picture are what `serve` and its edit box draw. A real "
        "campaign shows the real product, so it edits a photograph and does not draw a garment "
        "that nobody sells; and it needs pictures of a thousand pixels, the right to every "
        "training picture, and a label where the law asks for one. Whether an advertisement "
        "works is a question to people, not to a judge network.",
        (("one picture of GENERATOR_BASE", "generator_base.batch1_ms"),),
    ),
    Use(
        "Medicine",
        OUT,
        "No medical picture is used here, and a judge that knows ten garments says nothing of a "
        "drawn lesion: a plausible one that is wrong harms a patient. What carries over is the "
        "method of this page: test synthetic pictures on real ones that no network has seen, "
        "compare with plain augmentation, attack the generator for its members with a control, "
        "and state epsilon. Clinical use needs a clinical trial.",
    ),
    Use(
        "Driving",
        OUT,
        "A driving simulator needs scenes that stay consistent over time and between cameras, and "
        "rare events at their true frequency; a picture of 28 pixels has neither. A figure for "
        "exact accuracy says how often a caption is obeyed, not how safe a planner trained on the "
        "pictures drives.",
    ),
)  # fmt: skip

ARMS = {
    "plain": "100 photographs a class, nothing else",
    "classical": "the same, flipped and shifted",
    "synthetic": "the same, every second picture drawn by GENERATOR_BASE",
    "both": "both",
    "own": "flipped and shifted, every second picture drawn by a VAE that saw the same 1,000",
    "recomposed": "flipped and shifted, each photograph in a new scene at every step",
    "all": "flipped and shifted, all 6,000 photographs a class",
}
MASKS = {"middle": "the middle", "lower_half": "the lower part", "scattered": "half, scattered"}
FILLS = {
    "paper": "the background's colour",
    "mean": "the mean of what is left",
    "smooth": "Laplace's equation",
    "redrawn": "GENERATOR_BASE's drawing pasted in",
    "masked": "the masked model",
    "tokens": "the truth through the tokenizer (a bound)",
}
TARGETS = {
    "gpt": "the language model that draws: its likelihood",
    "vae": "the VAE: its bound on the likelihood",
    "nearest": "GENERATOR_BASE: the nearest of its drawings",
    "noise": "GENERATOR_BASE: the noise that comes closest",
}
LEVELS = {"plain": "none", "epsilon_8": "DP-SGD", "epsilon_2": "DP-SGD, stricter"}


class Figures:
    """The registry, as the words that stand in a table."""

    def __init__(self, rows: Iterable[Result]) -> None:
        self.rows = {row.name: row for row in rows}

    def value(self, name: str, interval: bool = False) -> str:
        """A figure with its unit, and its interval where asked for; or that it is not recorded."""
        row = self.rows.get(name)
        if row is None:
            return NOT_RECORDED
        share = row.unit == "share"
        scale, mark = (100, " %") if share else (1, "")
        unit = "" if share or row.unit in ("AUC", "epsilon") else f" {row.unit}"
        digits = _digits(row)
        text = f"{scale * row.value:{digits}}{mark}{unit}"
        if interval and isinstance(row.spread, tuple):
            low, high = (f"{scale * end:{digits}}" for end in row.spread)
            text += f" [{low}, {high}]"
        return text

    def number(self, name: str) -> float | None:
        """A figure's value; None where it is not recorded."""
        return self.rows[name].value if name in self.rows else None


def _digits(row: Result) -> str:
    if row.unit == "share":
        return ".1f"
    return ".3f" if row.unit == "AUC" else ".3g"


def use_table(figures: Figures) -> str:
    """Every use, its status, and why."""
    lines = ["| use | status | here |", "|---|---|---|"]
    for use in USES:
        quoted = "; ".join(f"{words}: {figures.value(name)}" for words, name in use.figures)
        text = f"{use.text} ({quoted[0].upper()}{quoted[1:]}.)" if quoted else use.text
        lines.append(f"| {use.name} | **{use.status}** | {text} |")
    return "\n".join(lines)


def augmentation_table(figures: Figures) -> str:
    """Accuracy of each arm, its gain over its comparison, and the verdict."""
    area = "applications_augmentation"
    lines = ["| trained on | garment found in real test pictures [least, most of the seeds] |"]
    lines.append("|---|---|")
    for name, label in ARMS.items():
        lines.append(f"| {label} | {figures.value(f'{area}.accuracy.{name}', True)} |")
    gains = (
        ("Drawings over nothing", "synthetic_over_plain"),
        ("flips and shifts over nothing", "classical_over_plain"),
        ("drawings on top of flips and shifts", "both_over_classical"),
        ("drawings of the VAE that saw only the 1,000, on top of them", "own_over_classical"),
        ("new scenes for the same photographs, on top of them", "recomposed_over_classical"),
    )
    said = [_gain(figures, words, f"{area}.gain.{name}") for words, name in gains]
    return "\n".join([*lines, "", "; ".join(said) + "."])


def _gain(figures: Figures, words: str, name: str) -> str:
    row = figures.rows.get(name)
    if row is None:
        return f"{words}: {NOT_RECORDED}"
    low, high = row.spread
    verdict = "helps" if low > 0 else "hurts" if high < 0 else "cannot be told from no effect"
    return (
        f"{words}: {100 * row.value:+.1f} points [{100 * low:+.1f}, {100 * high:+.1f}], {verdict}"
    )


def inpainting_table(figures: Figures) -> str:
    """Each way to fill on each mask."""
    area = "applications_inpainting"
    lines = [
        "| lost | filled with | all five found | error under the mask | of the mean of three "
        "draws | judge's features | pixels changed outside |",
        "|---|---|---|---|---|---|---|",
    ]
    for mask, lost in MASKS.items():
        for fill, label in FILLS.items():
            cells = [
                figures.value(f"{area}.exact_accuracy.{mask}.{fill}", True),
                *(
                    figures.value(f"{area}.{figure}.{mask}.{fill}").split(" ")[0]
                    if f"{area}.{figure}.{mask}.{fill}" in figures.rows
                    else NOT_RECORDED
                    for figure in ("error", "mean_error", "feature", "changed")
                ),
            ]
            lines.append(f"| {lost} | {label} | " + " | ".join(cells) + " |")
    real = figures.value(f"{area}.exact_accuracy.real", True)
    lines += ["", f"In the undamaged pictures the judge finds all five in {real}."]
    return "\n".join(lines)


def membership_table(figures: Figures) -> str:
    """Each attack on the shipped network beside the same attack on its control."""
    area = "applications_membership"
    lines = [
        "| attack | on the shipped network: AUC | members found at 1 % false alarms | each "
        "photograph was seen | on its control: AUC | members found | each photograph was seen |",
        "|---|---|---|---|---|---|---|",
    ]
    for target, label in TARGETS.items():
        cells = []
        for name in (target, f"{target}_control"):
            cells.append(figures.value(f"{area}.auc.{name}", True))
            cells.append(figures.value(f"{area}.caught_share.{name}"))
            views = figures.number(f"{area}.views.{name}")
            cells.append(NOT_RECORDED if views is None else f"{views:.0f} times")
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    found, unseen = [], []
    for target, label in TARGETS.items():
        row = figures.rows.get(f"{area}.auc.{target}")
        if row is not None:
            (found if row.spread[0] > 0.5 else unseen).append(label)
    if found:
        lines += ["", f"The interval lies above a coin's 0.5 for: {'; '.join(found)}."]
    if unseen:
        lines += ["", f"It reaches down to 0.5 or below for: {'; '.join(unseen)}."]
    return "\n".join(lines)


def privacy_table(figures: Figures) -> str:
    """The classifier at each level of privacy."""
    area = "applications_privacy"
    lines = [
        "| privacy | epsilon | test pictures right | its own training pictures right | the "
        "attack's AUC | members found at 1 % false alarms |",
        "|---|---|---|---|---|---|",
    ]
    for level, label in LEVELS.items():
        spent = "infinite" if level == "plain" else figures.value(f"{area}.spent.{level}")
        cells = [
            spent,
            figures.value(f"{area}.accuracy.{level}", True),
            figures.value(f"{area}.accuracy_train.{level}"),
            figures.value(f"{area}.auc.{level}", True),
            figures.value(f"{area}.caught_share.{level}"),
        ]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


PARTS = {
    "uses": use_table,
    "augmentation": augmentation_table,
    "inpainting": inpainting_table,
    "membership": membership_table,
    "privacy": privacy_table,
}


def render_applications(text: str) -> str:
    """`text` with each generated part replaced by what the registry says now.

    Raises ValueError when a part is missing, as `replace_parts` does.
    """
    figures = Figures(row for row in all_results() if row.device == "cpu")
    parts = {name: table(figures) for name, table in PARTS.items()}
    return replace_parts(text, parts, PAGE.name)


def write_applications(root: Path) -> bool:
    """Rewrite the page's generated parts; whether anything changed."""
    path = root / PAGE
    before = path.read_text(encoding="utf-8")
    after = render_applications(before)
    if after != before:
        with atomic_write(path) as temporary:
            temporary.write_text(after, encoding="utf-8", newline="\n")
    return after != before
