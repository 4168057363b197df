"""Cells of notebook 15. Figures come from the records; nothing measured is typed."""

import json
from pathlib import Path

_boot = json.loads(Path("notebooks/12_quantization.ipynb").read_text())["cells"][1]
BOOT = "".join(_boot["source"])

CELLS = [
("md", r"""
# 15 · The pipeline and the ladder

**A picture took a fifth of a second in the textbook loop. What did each step of this course take off that, and which of them would you take again?**

[Open in Colab](https://colab.research.google.com/github/OWNER/fastgen-course/blob/main/notebooks/15_pipeline.ipynb) ·
[launch on Binder](https://mybinder.org/v2/gh/OWNER/fastgen-course/HEAD?urlpath=lab/tree/notebooks/15_pipeline.ipynb)

Afterwards you can

- run the whole recipe, search, distil, prune, quantise and export, one call a stage, and stop it anywhere;
- read a speedup as a product, and say which part came from the algorithm and which from the system;
- find what is left once the network takes a tenth of a millisecond, and take it away without changing a picture;
- name the control rows that a claim of "a thousand times" owes its reader;
- choose a stack for a phone, a laptop and a server;
- say what of all this carries over to large pictures on a GPU, and what could not be measured here.

About 60 minutes for you, three minutes for the machine (two CPU cores, no GPU). **Core.**
Before: [12, quantization](12_quantization.ipynb) and [13, distillation](13_distillation.ipynb).
All notebooks: [README](../README.md).
"""),
("code", BOOT),
("code", r"""
import tempfile
from pathlib import Path

import torch
from IPython.display import Markdown

from fastgen_course.exercises import exercise, header, hints, predict, progress, status
from fastgen_course.ladder import figures
from fastgen_course.ladder.records import markdown_table, recorded_rows
from fastgen_course.show import image_grid, show
from fastgen_course.timing import describe_machine

torch.set_num_threads(1)
recorded = recorded_rows()
rows = recorded["rows"]
rungs = [row for row in rows if not row.control]
print("this machine:    ", describe_machine())
print("recorded machine:", recorded["machine"])
"""),
("md", r"""
## 1. The ladder

Every row below begins with the same string and ends with the same kind of thing, `uint8 (28, 28, 3)`; one change from rung to
rung. Rung 0 is no straw man: it is the course's real teacher, the smallest language model within noise of the best in a recorded
sweep, without padding, with the better of one and two threads. All rows were measured in turn, in one process, a burst of calls
each, so that a slow spell of the machine falls on all alike.
"""),
("code", r"""
Markdown(markdown_table(rows))
"""),
("code", r"""
show(figures.ladder_figure(rows), alt="Milliseconds a picture, one bar a rung, logarithmic: " +
     "; ".join(f"{row.words} {row.batch1_ms:.3g} ms" for row in rows))
print(recorded["sentence"])
print(recorded["teacher"])
print(*recorded["left_out"], sep="\n")
"""),
("md", r"""
The table is cumulative: each rung keeps what the rungs before it changed. That flatters whoever comes late and small, and hides who
comes early: on a logarithmic axis every factor has its own length, wherever it stands. The exercise takes the total apart.
"""),
("code", 'header("pipeline.split_total")'),
("code", r"""
@exercise("pipeline.split_total")
def split_total(ms, kinds):
    '''Times faster by kind of change: rung i, of kinds[i - 1], came after rung i - 1: a dict.'''
    ...  # your turn
"""),
("code", 'hints("pipeline.split_total")'),
("code", r"""
factors = split_total([row.batch1_ms for row in rungs], [row.change for row in rungs[1:]])
show(figures.split_figure(factors), alt="Factors by kind of change: " +
     "; ".join(f"{kind} {factor:.3g} times" for kind, factor in factors.items()))
product = 1.0
for kind, factor in factors.items():
    product *= factor
    print(f"{kind:14} {factor:7.3g} times, {product:8.4g} times so far")
"""),
("md", r"""
## 2. Three ratios, not one

"A thousand times faster" mixes two claims. Between rung 0 and the last stands one row that tells them apart: the *last network in
the first one's runtime and precision*. From rung 0 to it only the **algorithm** changed (what is computed: fewer forwards, another
family, a smaller net). From it to the last rung only the **system** (how the same is computed: a runtime, integers, what stands
around the network). The two multiply to **end to end**.

At a batch of one, much of rung 0's time goes into starting operators; at a large batch that is shared, and the same rung 0 draws
more pictures a second. So each ratio is given twice.
"""),
("code", r"""
words = {"algorithm": "algorithm (eager, float32, both)", "system": "system (same network)", "end_to_end": "end to end"}
for key, text in words.items():
    if key in recorded["ratios"]:
        best = recorded["ratios"].get(f"{key}_best_batch")
        print(f"{text:34} batch 1: {recorded['ratios'][key]:8.4g} times", f"  best batch: {best:8.4g} times" if best else "")
"""),
("md", r"""
### What it cost in quality

Milliseconds alone prove nothing: a constant picture is faster than all of these. Follow the line from rung 0. Where it goes up, the
rung gave quality away; where it goes down, the change of family paid twice. A FID from here counts only against another FID from
here (10,000 pictures, the same captions, the same judge).
"""),
("code", r"""
show(figures.quality_figure(rows), alt="FID against milliseconds: " +
     "; ".join(f"{row.words} {row.batch1_ms:.3g} ms, FID {row.fid:.3g}" for row in rows if row.fid is not None))
first, last = rungs[0], rungs[-1]
if None not in (first.fid, last.fid):
    print(f"FID {last.fid:.3g} against {first.fid:.3g}: {last.fid / first.fid:.2f} times")
    print(f"every attribute found: {last.exact_accuracy:.1%} against {first.exact_accuracy:.1%}")
    print(f"recall (variety): {last.recall:.1%} against {first.recall:.1%}")
"""),
("md", r"""
### The control rows

An expert asks at once: *would the old method not have been fast enough, had you cared for it as much?* So the cached loop and the
masked model stand there in **their** best runtime. GENERATOR_BASE and the VAE stand there because one forward is one forward: most
of the change of family needs no distillation at all. The program that composed the data stands there because it is better than
every network and takes a fraction of a millisecond: in this small world the networks are for learning how, not for the pictures.
Two more are recorded and not timed, for they are no faster or slower than their twins: the same student trained without a teacher,
and a smaller teacher.
"""),
("code", r"""
from fastgen_course.timing import all_results

for name in ("distillation.exact_accuracy.gan_real", "distillation.fid.gan_real", "gpt_sweep.exact_accuracy.gpt_s"):
    for row in all_results(name.split(".")[0]):
        if row.name == name:
            print(f"{name:40} {row.value:.3g} {row.unit}")
controls = [row for row in rows if row.control]
for row in controls:
    print(f"{row.words:44} {row.batch1_ms:8.3g} ms, {row.batch1_ms / last.batch1_ms:7.3g} times the last rung's")
"""),
("md", r"""
> **Spot the slip.** *"I ran the old model once and the new one once; the new one is 2,400 times faster."* The first call of anything
> loads, allocates and compiles. Below, the same network, cold and warm.
"""),
("code", r"""
from fastgen_course.checkpoints import load_model
from fastgen_course.compression.deploy import Painter, write_lean_graph
from fastgen_course.files import data_path
from fastgen_course.timing import measure, measure_once

name = next(n for n in ("student_int8", "generator_int8") if data_path("weights", f"{n}.json").is_file())
final = load_model(name)
folder = Path(tempfile.mkdtemp())
graph = write_lean_graph(final, folder / "final.onnx", "blocks")
caption = ["a small red sneaker on a white background, sketch style"]
cold_ms, painter = measure_once(lambda: Painter(graph))
first_ms, _ = measure_once(lambda: painter(caption))
warm = measure(lambda: painter(caption), min_seconds=1.0)
print(f"{name}: loading {cold_ms:.1f} ms, first picture {first_ms:.2f} ms, then {warm.median_ms:.3f} ms "
      f"(median of {warm.repeats}): the first was {first_ms / warm.median_ms:.0f} times a later one")
"""),
("md", r"""
## 3. What is left when the network is fast

At rung 0 nobody asks how long it takes to read a caption. At the last rung it is a good part of the time. Predict first.
"""),
("code", r"""
def what_is_left():
    for network in (0.110, 0.055, 0.0275):
        print(f"network {network:.4f} ms: picture {0.040 + network:.4f} ms, {0.150 / (0.040 + network):.2f} times")


predict("pipeline.what_is_left", ["2 times", "about 1.6 times", "about 1.2 times"], result=what_is_left)
"""),
("md", r"""
Three things stand around the network, and all three can go without changing one byte of a picture.

**Words.** The caption encoder embeds each word and convolves over three neighbours. Both are linear, and the vocabulary is small:

$$\big(W * E\big)_i = W_{-1}\, e(w_{i-1}) + W_0\, e(w_i) + W_{1}\, e(w_{i+1}) ,$$

where each product $W_k\, e(w)$ is one of a few dozen. They fit in a table; what remains is to add three of its rows.
"""),
("code", 'header("pipeline.word_table")'),
("code", r"""
@exercise("pipeline.word_table")
def word_table(embedding, kernel):
    '''embedding (V, E) and a convolution's kernel (C, E, 3) as one table (3, V, C).'''
    ...  # your turn
"""),
("code", 'hints("pipeline.word_table")'),
("code", r"""
from fastgen_course.datasets.captions import VOCABULARY, encode_words

encoder = final.caption_encoder
table = word_table(encoder.embedding.weight, encoder.ngrams.weight)
words = encode_words(caption)
slow = encoder.ngrams(encoder.embedding(words).transpose(1, 2))
padded = torch.nn.functional.pad(words, (1, 1))
fast = (table[0][padded[:, :-2]] + table[1][words] + table[2][padded[:, 2:]] + encoder.ngrams.bias).transpose(1, 2)
print("table:", tuple(table.shape), f"{4 * table.numel() / 1000:.0f} kB for {len(VOCABULARY)} words")
print("largest difference:", f"{(slow - fast).abs().max():.1e}")
"""),
("md", r"""
**Bytes.** The picture leaves the graph as `uint8`, channels last; no float picture is handed to Python and turned there.
**The call.** The runtime reads its inputs from memory that it knows already. Here is where the time of one picture goes, live:
"""),
("code", r"""
noise = torch.randn(1, final.config.noise).numpy()
numbers = words.numpy()
generator = torch.Generator().manual_seed(0)
parts = {
    "string to numbers": lambda: encode_words(caption),
    "noise": lambda: torch.randn(1, final.config.noise, generator=generator),
    "network to bytes": lambda: painter.paint(noise, numbers),
    "all": lambda: painter(caption, generator),
}
for what, call in parts.items():
    timing = measure(call, min_seconds=0.4)
    print(f"{what:18} {1000 * timing.median_ms:6.1f} µs")
"""),
("md", r"""
## 4. The recipe, one call a stage

The order is search, distil, prune and finetune, quantise last: a searched shape is worth training, a trained network worth pruning,
and the grid must be fitted to the weights that ship. Each stage below is one call with a typed result, kept under the hash of what
it was made from. Kill it anywhere: it goes on. Change a late stage: the early ones are not run again.

Here it runs with budgets so small that the network is worth nothing. The full recipe is the same object with other numbers:
`python -m fastgen_course pipeline`.
"""),
("code", r"""
from fastgen_course.pipeline import DRY, Pipeline

made = Pipeline(DRY, folder / "pipeline", command="python -m fastgen_course pipeline --dry")
searched = made.search()
print("chosen:", searched.widths, f"{searched.macs / 1e6:.1f} M multiply-accumulates; looked at {len(searched.tried)}")
"""),
("code", r"""
distilled, pruned, quantised = made.distil(), made.prune(), made.quantise()
for stage in (distilled, pruned, quantised):
    print(type(stage).__name__, stage.widths, f"{stage.parameters:,} weights, distance {stage.distance:.3f}")
done = made.export()
print("delivered:", *done.graphs.values(), f"{done.weight_bytes:,} bytes of weights")
"""),
("code", r"""
from dataclasses import replace

again = Pipeline(replace(DRY, quantise=replace(DRY.quantise, seed=5)), folder / "pipeline")
again.export();
"""),
("md", r"""
Three of its stages were there already; only what hangs on the changed number was made again.

## 5. The final model, in your hands

Left, the network that all of this led to, in the kernel: type, and look at the milliseconds below the picture. The box draws with
exactly the function that the ladder's last rows time.
"""),
("code", r"""
from fastgen_course.widgets.caption_box import caption_box


def draw(text, seed):
    return painter([text], torch.Generator().manual_seed(seed))[0]


caption_box(draw)
"""),
("code", r"""
import numpy as np

captions = ["a small red sneaker on a white background, sketch style", "a large blue dress on a pale pink background, photo style",
            "a large brown bag on a grey background, flat style", "a large purple t-shirt on a black background, pixel art style"]
pictures = np.stack([draw(text, seed) for text in captions for seed in range(6)])
show(image_grid(pictures, columns=6, row_labels=[text.split(" on ")[0] for text in captions]),
     alt="Pictures by the final model, six seeds a caption: " + "; ".join(captions))
"""),
("md", r"""
Beside it, the same network in **your browser's page**: its file travels over the notebook's own connection, and nothing is fetched
from elsewhere. The page has WASM's integers or floats as the browser gives them; press the button.
"""),
("code", r"""
from fastgen_course.compression.int8_graphs import float_graph
from fastgen_course.widgets.browser_gpu import browser_figure, browser_gpu, recorded_timings

page = browser_gpu(float_graph(final.folded(), folder / "page.onnx"))
page
"""),
("code", r"""
timings = page.timings() or recorded_timings()
print("from your page" if page.timings() else "recorded in headless Chromium with GENERATOR_BASE; press the button and run this again")
show(browser_figure(timings), alt="Milliseconds a picture in a browser page: " +
     "; ".join(f"{t.device}, batch {t.batch}: {t.ms_per_image:.3g} ms" for t in timings))
"""),
("md", r"""
The same page stands by itself, with and without a kernel: `python -m fastgen_course serve` draws on this machine, `serve --static
FOLDER` writes files that draw in the visitor's browser.

## 6. Your own rung

A file with one function climbs the ladder beside all of these:

```python
# my_model.py
def draw(captions, generator):      # list of str, torch.Generator
    ...                             # -> uint8 (len(captions), 28, 28, 3)
```

`python -m fastgen_course ladder --quick --mine my_model.py` measures it here and now, in turn with the others.

## 7. Which stack for what

| where | what counts | take | leave |
|---|---|---|---|
| a phone or a page | bytes to fetch, one picture, no tuned library | a one-step student, pruned, int8 weights | anything with forty-nine calls; a runtime that must be compiled |
| a laptop | one picture at once, a good CPU runtime | the student in int8 in the runtime that has integer kernels for *its* layers: measure two | `torch.compile` for one picture, unless measured |
| a server | pictures a second, many at once | the same network in batches, one thread a worker, more workers before more threads | tricks that save only the start of operators: a batch shares it already |

What each technique brought and did not, in one line each. **Cache**: no recomputation, the same tokens, the first thing to do, and
not enough. **Parallel decoding**: fewer forwards, and another distribution, so it owes a quality row. **Another family**: the
largest factor here, for free at run time, paid at training time. **Search**: shapes for *this* runtime's milliseconds; it loses its
worth when the runtime changes. **Distillation**: quality at a size that cannot reach it from data alone. **Pruning**: less work for
a network that exists; MACs are not milliseconds. **int8**: worth what the runtime's integer kernels are worth. **A better
runtime**: a good part of the whole, for an afternoon's work.

## 8. What carries over to 1024 pixels on a GPU, and what does not

**Carries over**: fewer forwards (a fifty-step diffusion model distilled to four or one is the same step as here, and the largest
there too); counting a quality row for every speed row; ratios paired in one run; the order of the recipe; matching a network's own
outputs when its numbers change.

**Does not**: a table of words in place of an encoder (a language model of billions has no such table); the share of Python and of
starting operators, which is most of rung 0 here and next to nothing there; int8 on integer kernels of a CPU; everything about caches
of a few hundred kilobytes.

**Could not be measured here**, for this course promises no GPU: fp8 and 4-bit floating point (they need tensor cores that have
them; on a CPU they are slower than float32, being converted to it), CUDA graphs (they remove the start of kernels, which a CPU does
not have), attention kernels that never write the score matrix (at 49 tokens it fits in the first cache anyway), several GPUs. What
the widget below says of a GPU is *predicted* from published peaks, and says so.
"""),
("code", r"""
from fastgen_course.compression.int8_graphs import example_inputs
from fastgen_course.widgets.gpu_vs_cpu import gpu_vs_cpu

network = final.folded()
gpu_vs_cpu(network, lambda batch: example_inputs(network, batch), batches=(1, 16, 64), threads=1, seconds=4.0);
"""),
("md", r"""
## 9. Measured, and where it stands

Everything above the line of records was written by `python -m fastgen_course ladder --record`. Here it is for this network:
"""),
("code", r"""
for row in all_results("ladder"):
    if row.name.count(".") == 1:
        print(f"{row.name:30} {row.value:9.4g} {row.unit:6} {row.command}")
"""),
("code", "progress()"),
("md", r"""
## What to read next

- [14, scale out](14_scale_out.ipynb): when more machines help, and when they do not.
- gpt-fast (PyTorch, 2023): a ladder like this one for a language model, on a GPU, each rung a few lines.
- Li et al. 2020, *GAN Compression*: search and distillation in one recipe for generators.
- Sauer et al. 2023, *Adversarial Diffusion Distillation*, and Yin et al. 2024, *One-step Diffusion with Distribution Matching
  Distillation*: the change from fifty steps to one at 512 and 1024 pixels.
- Jacob et al. 2018, *Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference*.
"""),
]
