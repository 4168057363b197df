"""The command line: `python -m fastgen_course COMMAND`, or `fastgen-course COMMAND`.

Each command imports what it needs when it runs, so that `--help` answers at once. A reader's
mistake ends in one sentence on stderr and exit status 2, never in a traceback.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # torch loads when a command needs it
    import torch


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the process's exit status (0 right, 2 a mistake named on stderr)."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        return options.run(options) or 0
    except KeyboardInterrupt:
        print("stopped.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `... results | head` closed its end
        sys.stderr.close()
        return 0
    except ModuleNotFoundError as error:
        name = error.name or "a package"
        print(
            f"error: {name} is not installed; install the course with "
            '`python -m pip install -c constraints.txt -e ".[all]"`.',
            file=sys.stderr,
        )
    except (ValueError, OSError) as error:
        if options.debug:
            raise
        print(f"error: {_sentence(error)}", file=sys.stderr)
    return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m fastgen_course", description="Captions to pictures, measured step by step."
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    draw = commands.add_parser("draw", help="draw a caption")
    draw.add_argument("caption", help='e.g. "a small red sneaker on a white background"')
    draw.add_argument("--out", type=Path, default=Path("picture.png"), help="a .png file to write")
    draw.add_argument("--seed", type=_seed, default=0, help="another seed, another picture")
    draw.add_argument("--enlarge", type=int, default=8, help="screen pixels per pixel (1 to 32)")
    draw.add_argument(
        "--model",
        choices=("generator_base", "gpt"),
        default="generator_base",
        help="the one-step generator, or the language model over image tokens",
    )
    draw.set_defaults(run=_draw)

    describe = commands.add_parser("describe", help="say what a picture shows that `draw` wrote")
    describe.add_argument("file", type=Path, help="a .png of 28x28 pixels, enlarged or not")
    describe.set_defaults(run=_describe)

    edit = commands.add_parser("edit", help="change a picture by words and keep its garment")
    edit.add_argument("file", type=Path, help="a .png of 28x28 pixels, enlarged or not")
    edit.add_argument("request", help='e.g. "make it green and draw it as a sketch"')
    edit.add_argument("--out", type=Path, default=Path("edited.png"), help="a .png file to write")
    edit.add_argument("--seed", type=_seed, default=0, help="another seed for what is drawn anew")
    edit.add_argument("--enlarge", type=int, default=8, help="screen pixels per pixel (1 to 32)")
    edit.add_argument("--shows", default="", help="a caption of what was read wrongly in FILE")
    edit.add_argument("--rules", action="store_true", help="keyword rules read the request")
    edit.set_defaults(run=_edit)

    serve = commands.add_parser("serve", help="a small web page that draws captions")
    serve.add_argument("--host", default="127.0.0.1", help="this machine alone unless changed")
    serve.add_argument("--port", type=int, default=8008, help="0 takes a free one")
    serve.add_argument("--model", default="student_int8", help="shipped weights, or a .onnx file")
    serve.add_argument("--prefix", default="", help="a path that a proxy puts before the page's")
    serve.add_argument("--workers", type=int, default=1, help="that draw, one thread each")
    serve.add_argument("--batch", type=int, default=16, help="pictures drawn at once under load")
    serve.add_argument(
        "--language-model", action="store_true", help="it reads edits, too (0.7 GB more)"
    )
    serve.add_argument(
        "--static", type=Path, metavar="FOLDER", help="write the page as files instead"
    )
    serve.set_defaults(run=_serve)

    results = commands.add_parser("results", help="every recorded figure and its command")
    results.add_argument("area", nargs="?", help="one area only, e.g. vae")
    results.add_argument("--json", action="store_true", help="as JSON")
    results.set_defaults(run=_results)

    train = commands.add_parser("train", help="train shipped weights again (goes on after a kill)")
    train.add_argument("name", nargs="?", help="which weights; without a name, the list")
    train.set_defaults(run=_train)

    scale = commands.add_parser("scale", help="draw a file of captions across workers")
    scale.add_argument("prompts", type=Path, help="a text file, one caption a line")
    scale.add_argument("--out", type=Path, required=True, help="a folder; a killed run goes on")
    scale.add_argument("--workers", type=int, default=2, help="processes, one thread each")
    scale.add_argument("--model", default="generator_base", help="shipped weights that draw")
    scale.add_argument("--images", type=int, help="how many; without it, one a caption")
    scale.add_argument("--seed", type=int, default=0, help="another seed, other pictures")
    scale.add_argument("--batch", type=int, default=64, help="pictures drawn at once")
    scale.add_argument("--shard", type=int, default=512, help="pictures a file, whole batches")
    scale.add_argument("--device", default="cpu", help="cpu, cuda or mps")
    scale.add_argument("--address", help="a running Ray cluster (auto finds one)")
    scale.set_defaults(run=_scale)

    ladder = commands.add_parser("ladder", help="measure every rung from rung 0 to the delivered")
    ladder.add_argument("--quick", action="store_true", help="milliseconds alone, two minutes")
    ladder.add_argument("--json", type=Path, metavar="FILE", help="write one object a rung")
    ladder.add_argument("--mine", type=Path, metavar="PY", help="a file with your own draw()")
    ladder.add_argument("--chart", type=Path, default=Path("ladder.png"), help="a .png to write")
    ladder.add_argument("--record", action="store_true", help="score and record (idle machine)")
    ladder.set_defaults(run=_ladder)

    pipeline = commands.add_parser("pipeline", help="search, distil, prune, quantise and export")
    pipeline.add_argument("--dry", action="store_true", help="tiny budgets, about a minute")
    pipeline.add_argument("--out", type=Path, help="a folder; a killed run goes on from it")
    pipeline.add_argument("--record", action="store_true", help="score and record (idle machine)")
    pipeline.set_defaults(run=_pipeline)

    notebooks = commands.add_parser("notebooks", help="re-execute notebooks and normalise them")
    notebooks.add_argument("names", nargs="*", help="e.g. 02; without a name, all")
    notebooks.add_argument("--record", action="store_true", help="record minutes and memory")
    notebooks.set_defaults(run=_notebooks)

    readme = commands.add_parser("readme", help="write the tables of README and APPLICATIONS")
    readme.add_argument("--picture", action="store_true", help="draw its picture again, too")
    readme.set_defaults(run=_readme)

    links = commands.add_parser("links", help="set the public address in badges and bootstraps")
    links.add_argument("repository", help="owner/name")
    links.set_defaults(run=_links)
    return parser


def _seed(text: str) -> int:
    """A seed that every random generator takes."""
    if not text.isdecimal() or int(text) >= 2**63:
        raise argparse.ArgumentTypeError(f"a seed is a whole number from 0 up, got {text[:30]}.")
    return int(text)


def _draw(options: argparse.Namespace) -> None:
    import torch

    from fastgen_course.datasets.captions import parse
    from fastgen_course.timing import measure

    _check_out(options)
    parse(options.caption)  # a caption that cannot be read stops here, before weights are loaded
    draw = _drawer(options.model)
    generator = torch.Generator().manual_seed(options.seed)
    image = draw([options.caption], generator)
    timing = measure(lambda: draw([options.caption], generator))
    print(
        f"{_write(image[0], options)}, {timing.median_ms:.2f} ms median "
        f"(p90 {timing.p90_ms:.2f} ms, {timing.repeats} repeats, batch 1, "
        f"{timing.threads} threads, {timing.device})"
    )


def _check_out(options: argparse.Namespace) -> None:
    """Refuse --out and --enlarge that cannot be, before anything is drawn."""
    if options.out.suffix.lower() != ".png":
        raise ValueError(f"--out {options.out.name} is not a .png file; end its name in .png.")
    if options.out.is_dir():
        raise ValueError(f"--out {options.out.name} is a folder; name a file in it.")
    if not 1 <= options.enlarge <= 32:
        raise ValueError(f"--enlarge must be 1 to 32, got {options.enlarge}.")


def _write(image: torch.Tensor, options: argparse.Namespace) -> str:
    """Write an image (3, H, W) to --out, enlarged; its name and pixels, to be printed."""
    from PIL import Image

    from fastgen_course.files import atomic_write
    from fastgen_course.show import to_uint8

    picture = Image.fromarray(to_uint8(image))
    size = (picture.width * options.enlarge, picture.height * options.enlarge)
    with atomic_write(options.out) as temporary:
        picture.resize(size, Image.Resampling.NEAREST).save(temporary, format="png")
    return f"{options.out}: {picture.width}x{picture.height} pixels"


def _drawer(name: str) -> Callable[[list[str], torch.Generator], torch.Tensor]:
    """`draw(captions, generator)` of a shipped model: images (B, 3, 28, 28)."""
    from fastgen_course.checkpoints import load_model
    from fastgen_course.sampling.gpt import draw_images
    from fastgen_course.sampling.one_step import sample_generator

    if name == "gpt":
        gpt, tokenizer = load_model("gpt"), load_model("tokenizer")
        return lambda captions, generator: draw_images(
            gpt, tokenizer, captions, generator=generator
        )
    model = load_model(name)
    return lambda captions, generator: sample_generator(model, captions, generator=generator)


def _describe(options: argparse.Namespace) -> None:
    from dataclasses import asdict

    from fastgen_course.checkpoints import load_model
    from fastgen_course.datasets.captions import render
    from fastgen_course.sampling.gpt import describe_tokens, unlike_any
    from fastgen_course.sampling.picture_files import read_picture, to_model
    from fastgen_course.timing import measure

    image = to_model(read_picture(options.file))[None]
    gpt, tokenizer = load_model("gpt"), load_model("tokenizer")

    def describe() -> list:
        return describe_tokens(gpt, tokenizer.encode(image))

    (found,) = describe()
    timing = measure(describe)
    print(render(found))
    for slot, value in asdict(found).items():
        if value is not None:
            print(f"  {slot}: {value}")
    if unlike_any(tokenizer, image)[0]:
        print("  (a guess: the picture looks like nothing that the course draws)")
    print(
        f"{timing.median_ms:.2f} ms median (p90 {timing.p90_ms:.2f} ms, {timing.repeats} repeats, "
        f"batch 1, {timing.threads} threads, {timing.device})"
    )


def _edit(options: argparse.Namespace) -> None:
    from fastgen_course.datasets.captions import render
    from fastgen_course.language.assistant import edit_picture, time_stages
    from fastgen_course.language.edits import RULES
    from fastgen_course.sampling.picture_files import read_picture

    _check_out(options)
    picture = read_picture(options.file)
    if options.out.exists() and options.out.samefile(options.file):
        raise ValueError(f"--out {options.out.name} is the picture to edit; name another file.")
    road = RULES if options.rules else None
    done = edit_picture(picture, options.request, shows=options.shows, seed=options.seed, road=road)
    written = _write(done.image, options)
    print(f"read:       {render(done.before)}")
    print(f"understood: {render(done.after)} (answered by the {done.answered_by})")
    print(f"way:        {done.way}")
    print(f"reads now:  {render(done.found)}" + (f" ({done.missed})" if done.missed else ""))
    print(done.note)
    print(written)
    stages = time_stages(done, seed=options.seed, road=road)
    said = [f"{name} {t.median_ms:.2f} (p90 {t.p90_ms:.2f})" for name, t in stages.items()]
    threads = stages["draw"].threads
    print(f"ms median a stage: {', '.join(said)}; batch 1, {threads} threads, cpu")


def _serve(options: argparse.Namespace) -> None:
    if options.static is not None:
        from fastgen_course.serve.static import write_static

        written = write_static(options.static, options.model)
        print(
            f"{options.static}: {len(written)} files, {sum(written.values()) / 1e6:.1f} MB; open "
            f"them through a web server, such as `python -m http.server -d {options.static}`."
        )
        return
    from fastgen_course.serve.server import serve

    settings = ("model", "host", "port", "prefix", "workers", "batch", "language_model")
    serve(**{name: getattr(options, name) for name in settings})


def _results(options: argparse.Namespace) -> None:
    from fastgen_course.timing.results import all_results, format_results, results_json

    rows = all_results(options.area)
    if options.area and not rows:
        raise ValueError(
            f"Nothing is recorded in area {options.area!r}; `python -m fastgen_course results` "
            "lists every area."
        )
    print(results_json(rows) if options.json else format_results(rows))


def _train(options: argparse.Namespace) -> None:
    # Read when torch loads, so it must be set before: waiting threads sleep instead of spinning.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    from fastgen_course.training import TRAINERS, train

    if options.name is None:
        print(f"weights that can be trained again: {', '.join(sorted(TRAINERS))}")
        return
    card = train(options.name)
    print(f"{options.name} is shipped: {card['parameters']:,} parameters, {card['bytes']:,} bytes.")


def _scale(options: argparse.Namespace) -> None:
    from fastgen_course.runtimes.scale import draw_many

    settings = ("workers", "model", "images", "seed", "batch", "shard", "device", "address")
    report = draw_many(
        options.prompts, options.out, **{name: getattr(options, name) for name in settings}
    )
    if report.skipped:
        print(report.skipped, file=sys.stderr)
    print(report)


def _ladder(options: argparse.Namespace) -> None:
    from fastgen_course.ladder.command import run_ladder

    if options.chart.suffix.lower() != ".png":
        raise ValueError(f"--chart {options.chart.name} is not a .png file; end its name in .png.")
    run_ladder(
        quick=options.quick,
        json_file=options.json,
        mine_file=options.mine,
        chart=options.chart,
        recording=options.record,
    )


def _pipeline(options: argparse.Namespace) -> None:
    from fastgen_course.pipeline import DRY, FULL, Pipeline
    from fastgen_course.pipeline.records import record_pipeline

    if options.dry and options.record:
        raise ValueError("--dry makes a network worth nothing; leave --dry or --record out.")
    command = "python -m fastgen_course pipeline" + " --dry" * options.dry
    recipe = DRY if options.dry else FULL
    made = Pipeline(recipe, options.out, command=command, progress=True)
    done = made.run()
    print(
        f"{made.folder / done.card}: the card; graphs beside it: {', '.join(done.graphs.values())}"
    )
    if options.record:
        record_pipeline(made)


def _notebooks(options: argparse.Namespace) -> None:
    from fastgen_course.authoring.links import checkout
    from fastgen_course.authoring.notebooks import run_all

    run_all(checkout(), options.names, recorded=options.record)


def _readme(options: argparse.Namespace) -> None:
    from fastgen_course.authoring.applications import PAGE, write_applications
    from fastgen_course.authoring.links import checkout
    from fastgen_course.authoring.readme import draw_picture, write_readme

    if options.picture:
        draw_picture(checkout())
    changed = write_readme(checkout())
    print("README.md is rewritten." if changed else "README.md was up to date.")
    changed = write_applications(checkout())
    print(f"{PAGE.name} is rewritten." if changed else f"{PAGE.name} was up to date.")


def _links(options: argparse.Namespace) -> None:
    from fastgen_course.authoring.links import checkout, set_repository

    changed = set_repository(checkout(), options.repository)
    print("\n".join(path.name for path in changed) or "nothing to change.")


def _sentence(error: Exception) -> str:
    """The error's own words on one line."""
    return " ".join(str(error).split()) or type(error).__name__


if __name__ == "__main__":
    sys.exit(main())
