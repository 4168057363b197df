"""README's generated parts: the table of notebooks, the table of figures, and the picture."""

from __future__ import annotations

import re
from pathlib import Path

from fastgen_course.files import atomic_write, data_path, read_json, sha256_of
from fastgen_course.timing.results import Result, all_results

NOT_RECORDED = "not recorded yet"
PICTURE = Path("data") / "pictures" / "generated.png"
CHART = Path("data") / "pictures" / "ladder.png"

# What the picture shows: one row a caption, one column a noise.
PICTURE_CAPTIONS = (
    "a large red sneaker on a white background, photo style",
    "a large blue dress on a pale pink background, photo style",
    "a small green bag on a grey background, sketch style",
    "a large orange pullover on a pale blue background, flat style",
    "a large purple boot on a black background, pixel art style",
    "a small brown coat on a pale green background, photo style",
)

# Recorded name: how README calls it.
FIGURES = {
    "generator_base.exact_accuracy": "GENERATOR_BASE: every asked-for attribute found",
    "generator_base.exact_accuracy_real": "the same on real test images",
    "generator_base.heldout_exact_accuracy": "the same on combinations never trained on",
    "generator_base.fid": "GENERATOR_BASE: FID (smaller is better)",
    "fid.floor": "FID of real training against real test images",
    "fid.ceiling": "FID of uniform noise",
    "generator_base.batch1_ms": "GENERATOR_BASE: one picture",
    "judge.garment_accuracy": "the reporting judge: garment found in real test images",
    "gan_digits.live_accuracy": "the digit GAN after its live minute: digit found",
    "vae.elbo_gap_error": "the ELBO's gap against the exact posterior KL",
    "tokens.fid": "real test images through 49 image tokens: FID",
    "text_to_image.exact_accuracy": "the language model that draws: every attribute found",
    "text_to_image.fid": "the language model that draws: FID",
    "text_to_image.gan_over_gpt_batch1_speedup": "GENERATOR_BASE against it, one picture",
    "text_to_image.free_wording_accuracy": "a request in free words, drawn: every attribute found",
    "masked.exact_accuracy": "the masked model: every attribute found",
    "edit.changed": "an edit by words: the change is made",
    "edit.silhouette_iou": "overlap of the edited garment with the exact target",
    "edit.silhouette_iou_redraw": "the same when the picture is drawn again",
    "language_edit.exact": "edit requests in free words, understood",
    "sampling.kv_cache_speedup": "its cached loop, written out, against the plain loop",
    "sampling.kv_cache_written_speedup": "the same, both written out: what the cache saves",
    "sampling.parallel_speedup": "the fastest good parallel drawing against the plain loop",
    "sampling.parallel_exact_accuracy_drop": "the same: exact accuracy lost",
    "sampling.hf_generate_speedup": "the cached loop against Hugging Face's `generate`",
    "flow.four_step_speedup": "a flow at four evaluations against fifty guided steps, one picture",
    "flow.four_step_fid_ratio": "the same: FID, four over fifty",
    "flow.one_step_speedup": "a flow's one-step form against fifty guided steps, one picture",
    "flow.one_step_fid_ratio": "the same: FID, one over fifty",
    "hardware.fp32_peak_share": "GENERATOR_BASE, batch 64: share of the machine's peak",
    "nas.speedup": "a searched generator against GENERATOR_BASE, one picture",
    "nas.fid_ratio": "the same: FID, after over before",
    "nas.evolution_p_value": "that evolution finds no better front than random search: p",
    "nas.latency_within_10_percent": "unseen networks whose predicted ms is right within noise",
    "pruning.macs_reduction": "GENERATOR_BASE with fewer channels: products, before over after",
    "pruning.speedup": "the same: ms of 64 pictures, before over after",
    "pruning.fid_ratio": "the same: FID, after over before",
    "int8.speedup_batch1": "GENERATOR_BASE in int8 against the best float32 runtime, one picture, "
    "with VNNI",
    "int8.speedup_batch64": "the same, 64 pictures at once",
    "int8.two_products.speedup_batch1": "the same on a processor without VNNI, one picture",
    "int8.two_products.speedup_batch64": "the same, 64 pictures at once",
    "int8.fid_ratio": "the same: FID, int8 over float32",
    "int4.fid_ratio": "the same with weights of four bits",
    "distillation.speedup": "a one-step student against the language model that it replaces",
    "distillation.exact_accuracy_drop": "the same: points of exact accuracy lost",
    "distillation.fid_ratio": "the same: FID, student over teacher",
    "distillation.recall_ratio": "the same: recall, student over teacher",
    "ladder.speedup_plain": "the ladder, first rung to last, one picture from string to bytes",
    "ladder.speedup_cached": "the same from the cached loop",
    "ladder.speedup_algorithm": "the same: what the algorithm brings (same runtime and precision)",
    "ladder.speedup_system": "the same: what the system brings (same network)",
    "ladder.exact_accuracy_drop": "the same: points of exact accuracy lost",
    "ladder.fid_ratio": "the same: FID, last over first",
    "ladder.last_ms": "the last rung: one picture",
    "ladder.last_bytes": "the last rung: weights",
    "pipeline.minutes.total": "search, distil, prune and quantise by one command, on one core",
    "pipeline.export_over_base_speedup": "what it made against GENERATOR_BASE in ONNX Runtime",
    "pipeline.fid.quantise": "the same: FID",
    "distributed.one_worker_share": "one worker on Ray: share of the bare loop's pictures a second",
    "distributed.two_worker_speedup": "two workers against one",
    "browser.max_abs_difference": "drawn in the page against drawn here: largest difference",
    "browser.wasm_pictures_per_s": "drawn in the page with WASM, one picture at a time",
    "serve.p99_ms": "the served page, 100 visitors a second apart: 99 of 100 wait less than",
    "course.minutes.total": "all notebooks from top to bottom, one after another",
}


def notebook_table(root: Path, rows: dict[str, Result]) -> str:
    """A Markdown table of the checkout's notebooks with their measured minutes and memory."""
    lines = [
        "| notebook | question | you | machine | memory |",
        "|---|---|---|---|---|",
    ]
    for path in sorted((root / "notebooks").glob("[0-9][0-9]_*.ipynb")):
        title, question, sitting = opening(path)
        number = path.stem[:2]
        minutes = _value(rows, f"course.minutes.{number}", "{:.1f} minutes")
        memory = _value(rows, f"course.peak_mb.{number}", "{:.0f} MB")
        link = f"[`{number}` {title}](notebooks/{path.name})"
        lines.append(f"| {link} | {question} | {sitting} | {minutes} | {memory} |")
    return "\n".join(lines)


def opening(path: Path) -> tuple[str, str, str]:
    """A notebook's title, its question and a human's minutes, read from its first cell."""
    import nbformat

    text = nbformat.read(path, as_version=4).cells[0].source
    title = re.sub(r"^#\s*(?:\d\d\s*[·:.-]*\s*)?", "", text.splitlines()[0]).strip()
    body = "\n".join(text.splitlines()[1:])
    bold = re.search(r"\*\*([^*]+\?)\*\*", body)  # a question of several sentences
    body = re.sub(r"[*_`]", "", body)
    body = re.sub(r"!?\[[^\]]*\]\([^)]*\)", "", body)
    asked = re.search(r"(?:^|[.:!]\s+|\n\s*)((?:[^.:!?\n]|\n(?!\n))+\?)", body)
    question = " ".join((bold or asked).group(1).split()) if bold or asked else ""
    sitting = re.search(r"\d+(?:\s*(?:to|-|–)\s*\d+)?\s*minutes", body)
    return title, question, " ".join(sitting.group().split()) if sitting else ""


def figure_table(rows: dict[str, Result]) -> str:
    """A Markdown table of the course's main figures, from the registry alone."""
    lines = ["| figure | value | measured with |", "|---|---|---|"]
    for name, label in FIGURES.items():
        row = rows.get(name)
        value = NOT_RECORDED if row is None else _quantity(row)
        command = "" if row is None else f"`{row.command}`"
        lines.append(f"| {label} | {value} | {command} |")
    return "\n".join(lines)


def picture_lines(root: Path) -> str:
    """The picture with its words, or a line that says how to draw it."""
    if not (root / PICTURE).is_file():
        return "The picture is not drawn yet: `python -m fastgen_course readme --picture` draws it."
    captions = "; ".join(PICTURE_CAPTIONS)
    alt = f"Pictures drawn by GENERATOR_BASE in one step, a row for each caption: {captions}."
    return f"![{alt}]({PICTURE.as_posix()})"


def ladder_lines() -> str:
    """The ladder's sentence, chart and table as recorded, or a line that says how to record it.

    The chart belongs to the table: raises ValueError where it is another one than was recorded.
    """
    recorded, chart = data_path("recordings", "ladder.json"), data_path("pictures", "ladder.png")
    if not recorded.is_file():
        return f"The ladder is {NOT_RECORDED}: `python -m fastgen_course ladder --record`."
    found = read_json(recorded)
    if not chart.is_file() or sha256_of(chart) != found["chart_sha256"]:
        raise ValueError(
            f"{CHART.as_posix()} is not the chart of the recorded ladder; run "
            f"`{found['command']}` again."
        )
    alt = "Milliseconds a picture for every rung of the ladder, on a logarithmic axis."
    return "\n\n".join(
        [
            f"{found['sentence']} {found['rival']} {found['teacher']}",
            f"![{alt}]({CHART.as_posix()})",
            found["markdown"],
            f"Measured with `{found['command']}` on: {found['machine']}. "
            f"{found['stability']}".rstrip(),
        ]
    )


def render_readme(root: Path, text: str) -> str:
    """`text` with each generated part replaced by what the registry says now.

    A part stands between `<!-- NAME:begin -->` and `<!-- NAME:end -->`. Raises ValueError when one
    of them is missing.
    """
    rows = {row.name: row for row in all_results() if row.device == "cpu"}
    parts = {
        "picture": picture_lines(root),
        "notebooks": notebook_table(root, rows),
        "figures": figure_table(rows),
        "ladder": ladder_lines(),
    }
    return replace_parts(text, parts, "README.md")


def replace_parts(text: str, parts: dict[str, str], file: str) -> str:
    """`text` with each part, between `<!-- NAME:begin -->` and `<!-- NAME:end -->`, replaced.

    Raises ValueError, naming `file`, when a part is missing.
    """
    for name, body in parts.items():
        begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
        pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
        if not pattern.search(text):
            raise ValueError(f"{file} has no part between {begin} and {end}.")
        text = pattern.sub(lambda _, b=begin, e=end, t=body: f"{b}\n{t}\n{e}", text)
    return text


def write_readme(root: Path) -> bool:
    """Rewrite README.md's generated parts; whether anything changed."""
    path = root / "README.md"
    before = path.read_text(encoding="utf-8")
    after = render_readme(root, before)
    if after != before:
        with atomic_write(path) as temporary:
            temporary.write_text(after, encoding="utf-8", newline="\n")
    return after != before


def draw_picture(root: Path, columns: int = 8, seed: int = 0) -> Path:
    """Draw README's picture with GENERATOR_BASE: a row for each caption, `columns` noises.

    Raises `DataFileError` when the weights are missing.
    """
    import matplotlib.pyplot as plt
    import numpy as np
    import torch

    from fastgen_course.checkpoints import load_model
    from fastgen_course.sampling.one_step import sample_generator
    from fastgen_course.show import figure_png, to_uint8

    model = load_model("generator_base")
    captions = [caption for caption in PICTURE_CAPTIONS for _ in range(columns)]
    images = sample_generator(model, captions, generator=torch.Generator().manual_seed(seed))
    rows, side = len(PICTURE_CAPTIONS), 30  # 28 pixels and a white gap of two
    framed = np.pad(to_uint8(images), ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=255)
    sheet = framed.reshape(rows, columns, side, side, 3).swapaxes(1, 2)
    figure, axis = plt.subplots(figsize=(2.6 + 0.75 * columns, 0.75 * rows))
    axis.imshow(sheet.reshape(rows * side, columns * side, 3), interpolation="nearest")
    labels = [text.replace(" on a ", "\non a ").replace(", ", "\n") for text in PICTURE_CAPTIONS]
    axis.set_yticks(side * np.arange(rows) + side / 2, labels, fontsize=8)
    axis.set_xticks([])
    axis.tick_params(length=0)
    axis.grid(False)
    axis.spines[:].set_visible(False)
    with atomic_write(root / PICTURE) as temporary:
        temporary.write_bytes(figure_png(figure))
    return root / PICTURE


def _quantity(row: Result) -> str:
    if row.unit == "share":
        return f"{100 * row.value:.1f} %"
    if row.unit == "bytes":
        return f"{row.value / 1000:,.0f} kB"
    return f"{row.value:.{4 if row.value >= 1000 else 3}g} {row.unit}"


def _value(rows: dict[str, Result], name: str, form: str) -> str:
    return form.format(rows[name].value) if name in rows else NOT_RECORDED
