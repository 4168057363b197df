CELLS = []


def md(text):
    CELLS.append(("md", text))


def code(text):
    CELLS.append(("code", text))


md(r"""
# 10 · Architecture search

**Somebody chose GENERATOR_BASE's widths, kernels and upsamplings by hand. Is there a network that draws as well in a third of the milliseconds, and how does one find it among millions?**

[Open in Colab](https://colab.research.google.com/github/OWNER/fastgen-course/blob/main/notebooks/10_nas.ipynb) ·
[launch on Binder](https://mybinder.org/v2/gh/OWNER/fastgen-course/HEAD?urlpath=lab/tree/notebooks/10_nas.ipynb)

Afterwards you can

- write a search space down as data, and count it;
- train one network whose slices are all the others, and say how far its word is to be trusted;
- predict the milliseconds of a network that was never run, and check the prediction against the error of measuring twice;
- compare random search, evolution and a controller fairly: one interface, one budget, twenty seeds, a paired test;
- read a front of two aims, and put an honest baseline on it.

About 70 minutes for you, three minutes for the machine (two CPU cores, no GPU). **Core.**
Before: [09, where the milliseconds go](09_hardware.ipynb). Next: 11, pruning.
All notebooks: [README](../README.md).
""")
code(r"""
# On Colab this cell fetches the course. On your own machine and on Binder it does nothing.
import sys

if "google.colab" in sys.modules:
    import pathlib
    import subprocess

    home = pathlib.Path.cwd() / "fastgen-course"
    if not home.exists():
        address = "https://github.com/OWNER/fastgen-course"
        subprocess.run(["git", "clone", "--quiet", "--depth", "1", address, home], check=True)
    if str(home) not in sys.path:
        sys.path.insert(0, str(home))
    from fastgen_course.bootstrap import install_missing

    install_missing(home)
""")
code(r"""
import statistics
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from IPython.display import Markdown

from fastgen_course.checkpoints import load_card, load_model
from fastgen_course.exercises import exercise, header, hints, predict, progress, status
from fastgen_course.search import nas_figures as figures
from fastgen_course.show import PALETTE, image_grid, show
from fastgen_course.timing import describe_machine, result

torch.set_num_threads(1)
base = load_model("generator_base")
print("this machine:    ", describe_machine())
print("recorded machine:", result("nas.speedup").machine)
""")
md(r"""
## 1. A space is data

A search needs three things (Elsken, Metzen and Hutter 2019): a *space*, a way to *judge* a network, and a *searcher* that decides what to judge next. The space comes first, and it is a list of
decisions with their options. Here they are those of GENERATOR_BASE's drawing: a stem that makes a 7x7 map, a convolution, an upsampling to 14x14, a convolution, an upsampling to 28x28, a
convolution, the picture.
""")
code(r"""
from fastgen_course.search.space import SPACE

for decision in SPACE.decisions:
    print(f"{decision.name:14}", *decision.options)
print(f"{SPACE.size():,} different networks")
""")
md(r"""
A block may be absent, a 1x1 or a 3x3 convolution, or a **depthwise-separable** one: a 3x3 convolution of each channel by itself and a 1x1 across channels (Howard et al. 2017). Dense, $I$ inputs and $O$
outputs cost $9\,I\,O$ multiply-accumulates (MACs) a place; separable $I\,(9 + O)$. An upsampling of kernel 4 is the transposed convolution of 01. With kernel 2 its taps do not overlap: each input place writes a 2x2 block of
its own, which is a 1x1 convolution to four times the channels and a **pixel shuffle** (Shi et al. 2016).

The widths end at three quarters of GENERATOR_BASE's: we are looking for *faster* networks. Norms are no part of the space. In a trained generator they fold into the layers
before them, and what is left of them is the modulation by noise and caption, $x \cdot a + b$.

An architecture is a dataclass. Its MACs follow from it without building anything, and a network follows from it:
""")
code(r"""
from fastgen_course.models.searched import Architecture, SearchedGenerator
from fastgen_course.timing.cost import model_cost

noise = torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
from fastgen_course.datasets.scenes import scene_batches

words = next(scene_batches("train", 64, torch.Generator().manual_seed(1))).words
for config in [Architecture(), SPACE.largest(), SPACE.smallest(), *SPACE.samples(3, seed=2)]:
    counted = model_cost(SearchedGenerator(config), (noise[:1], words[:1])).macs
    assert counted == config.macs(words.shape[1])
    print(f"{config.macs() / 1e6:6.2f} million MACs, {config.parameters() / 1e6:.2f} million weights: {config}")
""")
md(r"""
What cannot be built is refused by the field that is wrong, before anything runs:
""")
code(r"""
from fastgen_course.models.searched import ArchitectureError
from fastgen_course.search.space import SearchSpace

for wrong in (
    lambda: Architecture(widths=(100, 64, 32, 32, 16, 16)),
    lambda: Architecture(widths=(64, 64, 32, 32, 16, 16), blocks=("none", "conv3", "conv3")),
    lambda: SearchSpace(widths={**SPACE.widths, "stem": ()}),
):
    try:
        wrong()
    except ArchitectureError as error:
        print(error)
""")
md(r"""
## 2. One network that is all of them

To judge a network one would train it. At several minutes each, 2.4 million networks take decades. **Weight sharing** (Pham et al. 2018; Cai et al. 2020) trains one network, the largest, in such a
way that its slices are good networks too: a narrow layer is the first channels of the wide one, a small kernel the centre of the large one.
""")
code(r"""
header("nas.shared_slice")
""")
code(r"""
@exercise("nas.shared_slice")
def shared_slice(weight, outputs, inputs, kernel):
    '''The first channels and the kernel's centre of weight (O, I, K, K): (outputs, inputs, kernel, kernel).'''
    ...  # your turn
""")
code(r"""
hints("nas.shared_slice")
""")
md(r"""
**Check.** The package's super-layers (`fastgen_course/search/supernet.py`) are ten lines each. `extract` takes a network out of the supernet, with copies of its slices; both draw the same.
The 2x2 centre of a 4x4 transposed kernel *is* the pixel shuffle's convolution, so that one set of weights serves both.

The supernet does not start from nothing. GENERATOR_BASE's norms are folded, the channels of every map are sorted by the power that they send on (their mean square times that of the weights that read them), and the
first three quarters are kept. A separable block starts as the dense one's nearest rank-one approximation, channel by channel.
""")
code(r"""
from fastgen_course.search.inherit import inherited_supernet
from fastgen_course.training.matching import relative_error

supernet = inherited_supernet(base)
config = SPACE.decode((4, 1, 4, 0, 2, 2, 2, 1, 1, 0, 1))
dense = supernet.layers["conv7"].dense
mine = shared_slice(dense.weight, config.width("conv7"), config.width("stem"), 1)
with torch.no_grad():
    pictures = base(noise, words)
    shared = supernet(noise, words, config)
    alone = supernet.extract(config)(noise, words)
    largest = supernet(noise, words)
if status("nas.shared_slice") != "wrong":
    assert torch.equal(mine, dense.sliced(config.layers()["conv7"])[0])
assert torch.allclose(shared, alone, atol=1e-5)
print(config)
print(f"extracted and sliced differ by {(shared - alone).abs().max():.0e}")
print(f"square error against GENERATOR_BASE, as a share of the variance: largest {relative_error(largest, pictures):.2f}, "
      f"this slice {relative_error(shared, pictures):.2f}")
""")
md(r"""
An untrained slice is worth little: nobody has told the first channels that they may be left alone. The **sandwich rule** (Yu et al. 2020) tells them. Each update takes the largest network,
the smallest, and two at random, and adds their losses: between the two ends everything is bounded, and the ends are trained each time.

What is the loss? GENERATOR_BASE says, for any noise and caption, which picture is meant. So a slice learns to draw *that* picture: the distance is the relative square error of the pixels plus that of what `judge_train` sees in them
(0 is the same picture, and 1 + 1 the mean of all). This is BigNAS's distillation within the supernet, with GENERATOR_BASE as the teacher of all slices. **Every network in this notebook is trained in this way.** It is cheap and fair
among them, and it is *in addition* to GENERATOR_BASE's own training, which all of them inherit.

A few updates, live, on very small batches:
""")
code(r"""
from fastgen_course.search.supernet import SupernetRecipe, SupernetTrainer

trainer = SupernetTrainer("notebook", supernet, base, SupernetRecipe(steps=16, batch=8, drawn=1, average=0.8))
for config in trainer.drawn():
    print("in the first sandwich:", config)
trainer.run(quiet=True)
print(f"mean distance over the first 16 updates: {trainer.training.history['distance'][0]:.2f}")
""")
md(r"""
The course's supernet had the updates that `SupernetRecipe()` says; it takes about 20 minutes and is not shipped: what it *said* is recorded, for every architecture that it was asked about.

## 3. Activation and initialisation: successive halving

Some decisions cannot be shared: weights that were trained with one activation are of no use to another, and a supernet that inherits its weights has no initialisation at all. They are tried by short trainings of a
network of middle size, each from fresh weights. Twenty candidates are too many to train to the end. **Successive halving** (Jamieson and Talwalkar 2016) trains all a little, keeps the better half, trains these as long again, and so on.
""")
code(r"""
def count():
    from fastgen_course.search.standalone import successive_halving

    spent = {}

    def train(candidate, updates):
        spent[candidate] = updates
        return float(candidate)

    for rung in successive_halving(range(20), train, first=20):
        print(f"{len(rung.distances):2} candidates until {rung.updates} updates")
    print(sum(spent.values()), "updates in all, instead of", 20 * max(spent.values()))


predict("nas.halving", ["75 %", "30 %", "5 %"], result=count)
""")
code(r"""
show(figures.plot_halving(), alt=figures.describe_halving())
rungs = figures.halving_rungs()
for candidate, distance in sorted(rungs[-1][1].items(), key=lambda item: item[1]):
    print(f"{candidate:24} {distance:.4f} after {rungs[-1][0]} updates")
""")
md(r"""
The method rests on an assumption: that who is behind early is behind late. It holds for candidates that differ as much as these, and fails for a learning rate that decays. (So the rate is constant here.) The lesson is
also about *what* is compared: an initialisation only matters from fresh weights. GENERATOR_BASE's slices come trained with ReLU, and the search goes on with ReLU, which runtimes fuse into the convolution
before it.

## 4. Milliseconds without a run

MACs are known at once. Are they what one waits for? The recorded 200 random networks of the space, and what their milliseconds go with:
""")
code(r"""
from fastgen_course.search.latency import LatencyTable, space_layers

table = LatencyTable.load()
unseen = list(SPACE.samples(40 + len(table.extra["measured_ms"]), seed=5))[40:]
macs, layers = figures.cost_correlations(unseen, table.extra["measured_ms"])
print(f"rank correlation of measured ms with MACs {macs:.2f}, with the number of layers {layers:.2f}")
by_kind = {}
for key, ms in table.entries.items():
    layer = space_layers()[key]
    by_kind.setdefault(layer.kind, []).append(layer.macs / ms / 1e6)
for kind, rates in by_kind.items():
    print(f"{kind:10} {statistics.median(rates):6.1f} billion MACs a second ({min(rates):.1f} to {max(rates):.1f})")
""")
md(r"""
A MAC is not a MAC: in one kind of layer the processor does many times more of them in a second than in another. (The stem reads a matrix once for one picture and waits for memory; a separable block has few MACs and two layers' worth of overhead.)
So the search is given milliseconds. A **latency table** measures every layer of the space once, alone, and takes a network's time for the sum,

$$\hat t \;=\; c_0 + c_1\,n + \sum_{i=1}^{n} t_i ,$$

with two constants fitted on 40 whole networks: $c_0$ for what every network has (the caption encoder, one call of the runtime), and $c_1 < 0$ for the call that each of the $n$ layers paid for when it was timed alone. The setting: ONNX
Runtime, float32, one thread, batch 1, everything interleaved.

How good must a prediction be? No better than the measurement: two measurements of the same network differ too. So 200 networks that the fit has not seen were measured *twice*.
""")
code(r"""
show(figures.plot_latency(), alt=figures.describe_latency())
within, error, again = (result(f"nas.latency_{n}") for n in ("within_10_percent", "error", "repeat_error"))
print(f"{len(table.entries)} layers in the table, c0 = {table.constant_ms:.3f} ms, c1 = {table.layer_ms:.4f} ms")
print(f"median error {error.value:.1%}; the same network measured twice differs by {again.value:.1%}")
print(f"within {within.extra['allowed']:.0%}: {within.value:.1%} of {within.extra['networks']} networks "
      f"[{within.spread[0]:.1%}, {within.spread[1]:.1%}]")
""")
md(r"""
**Is the recording honest?** Five networks, here and now. (On another processor the table is another one: then the predictions are off by about a common factor, and the command in the registry measures a new table in two minutes.)
""")
code(r"""
from fastgen_course.widgets.architecture_builder import architecture_builder, some_layers_figure

fig, said = some_layers_figure(table)
show(fig, alt=said)
""")
md(r"""
**The architecture builder.** Every decision has a slider; the table predicts at once, and this machine measures. What does a 3x3 convolution at 28x28 cost, what does the stem's width, and what does a transposed
convolution cost over a pixel shuffle?
""")
code(r"""
from fastgen_course.search.quality import QualityPredictor, load_distances

configs, distances = load_distances()
quality = QualityPredictor.fit(configs, distances)
architecture_builder(table, quality)
""")
md(r"""
## 5. Quality without a training

Asking the supernet about an architecture takes half a second: cut out the slice, draw 512 pictures, measure their distance. That is cheap, but a comparison of searchers over 20 seeds asks 40,000 times. So the supernet was asked about
300 architectures, and a small **ridge regression** answers for all others: the logarithm of the distance, as a sum over decisions and over pairs of decisions,

$$\log \hat d \;=\; w^\top \phi, \qquad w = \arg\min_w \lVert \Phi w - \log d \rVert^2 + \lambda \lVert w \rVert^2 = (\Phi^\top \Phi + \lambda I)^{-1} \Phi^\top \log d .$$

$\lambda$ is chosen by the error on rows left out. They need no second fit: with $H = \Phi(\Phi^\top\Phi + \lambda I)^{-1}\Phi^\top$ the error of row $i$, had it been left out, is $e_i / (1 - H_{ii})$.
""")
code(r"""
import math

from fastgen_course.search.quality import rank_correlation

left_out = [math.log(d) - e for d, e in zip(distances, quality.left_out)]
fig, axis = plt.subplots(figsize=(3.8, 3.2))
axis.scatter([math.exp(x) for x in left_out], distances, s=8)
axis.set(xlabel="predicted, this network left out", ylabel="what the supernet said")
show(fig, alt=f"Predicted against actual distance of {len(configs)} networks, each predicted by a fit without it: "
     f"rank correlation {rank_correlation(left_out, distances):.2f}.")
print(f"relative error {quality.error:.1%}, rank correlation {rank_correlation(left_out, distances):.3f}; "
      f"penalty {quality.penalty}, {len(quality.weights)} weights")
""")
md(r"""
`judge_train` may guide a search. The other judge, which scores every table of the course, was not asked until the end.

## 6. Two aims

Fewer milliseconds or a smaller distance? A network is **dominated** if another is at least as good in both and better in one. What no other dominates is the **front**: the honest answer to a question with two aims is a curve.
""")
code(r"""
header("nas.pareto_mask")
""")
code(r"""
@exercise("nas.pareto_mask")
def pareto_mask(points):
    '''points (N, 2), smaller is better in both: bool (N,), True where no other point dominates.'''
    ...  # your turn
""")
code(r"""
hints("nas.pareto_mask")
""")
md(r"""
**Check** against the package, which sorts by milliseconds and keeps whatever improves the distance: the same front in $N \log N$ steps. The **hypervolume** turns a front into one number, the share of a fixed rectangle that the front dominates. Its corner, the reference
point, has to be the same for all who are compared.
""")
code(r"""
from fastgen_course.search.front import hypervolume, pareto_front

points = [(table(c), d) for c, d in zip(configs, distances)]
mask = pareto_mask(torch.tensor(points, dtype=torch.float64))
front = pareto_front(points)
reference = tuple(result("nas.hypervolume.random").extra["reference"])
if status("nas.pareto_mask") != "wrong":
    assert sorted(mask.nonzero().flatten().tolist()) == sorted(front)
fig, axis = plt.subplots(figsize=(5.2, 3.2))
axis.scatter(*zip(*points), s=8, color="#999999")
axis.step(*zip(*[points[i] for i in front]), where="post")
axis.set(xlabel="predicted ms", ylabel="distance of the supernet's slice")
show(fig, alt=f"{len(points)} architectures by milliseconds and distance, with the {len(front)} of the front joined by a step line.")
print(f"{len(front)} of {len(points)} are on the front; hypervolume {hypervolume(points, reference):.4f} "
      f"for the reference {reference[0]:.3f} ms, {reference[1]:.3f}")
""")
md(r"""
> **Spot the slip.** *"We minimise $d + t$: the quality loss plus the latency."* The two have different units, so the sum has none, and what it prefers depends on whether $t$ was written in milliseconds or in microseconds:
""")
code(r"""
for unit, factor in (("ms", 1.0), ("µs", 1000.0), ("s", 0.001)):
    best = min(range(len(points)), key=lambda i: points[i][1] + factor * points[i][0])
    print(f"latency in {unit:2}: the best has {points[best][0]:.3f} ms and distance {points[best][1]:.3f}")
""")
md(r"""
A ratio or a product has no such freedom: $\log d + w \log t$ changes by a constant when the unit changes, and its minimum stays where it is. That is the reward of MnasNet (Tan et al. 2019), and of the controller below.

## 7. Searchers

All have one interface. A searcher sees the decisions and two numbers for each network it asks about, never the network; each answer costs one of a fixed budget, and the same question asked twice costs two. First the baseline, and a question about it:
""")
code(r"""
def luck():
    print(f"1 - 0.99^400 = {1 - 0.99**400:.3f}")


predict("nas.luck", ["about 2 %", "about 33 %", "about 98 %"], result=luck)
""")
md(r"""
**Evolution** is NSGA-II (Deb et al. 2002): a population; a child takes each decision from one of two parents, and now and then a new one; of parents and children the best fronts survive, and within a front those with room around them.

**A controller** keeps a distribution over the options of each decision and is paid for what it draws (Williams 1992; Zoph and Le 2017). The expected reward $J = \mathbb E_{c \sim p}[R(c)]$ has the gradient

$$\nabla J = \nabla \sum_c p(c)\,R(c) = \sum_c p(c)\,\nabla \log p(c)\,R(c) = \mathbb E\big[(R - b)\,\nabla \log p(c)\big] .$$

The baseline $b$ costs nothing, since $\mathbb E[\nabla \log p] = \nabla \sum_c p(c) = 0$, and takes away most of the variance (02 measured it). For one decision with logits $\theta$ and $p = \mathrm{softmax}(\theta)$:
""")
code(r"""
header("nas.policy_step")
""")
code(r"""
@exercise("nas.policy_step")
def policy_step(logits, chosen, reward, baseline):
    '''Gradient, with respect to the logits (N,), of (reward - baseline) log p(chosen).'''
    ...  # your turn
""")
code(r"""
hints("nas.policy_step")
""")
md(r"""
**Check** against autograd; then all three search, the controller with your gradient. (Four controllers with different exponents $w$ share its budget, since one finds one trade-off.)
""")
code(r"""
from functools import cache

from fastgen_course.search.searchers import Evaluator, Evolution, RandomSearch, Reinforce, run_search

logits = torch.tensor([0.4, -1.0, 0.7], requires_grad=True)
((2.0 - 0.5) * logits.log_softmax(0)[2]).backward()
if status("nas.policy_step") != "wrong":
    assert torch.allclose(policy_step(logits.detach(), 2, 2.0, 0.5), logits.grad)


def gradient(logits, chosen, reward, baseline):
    return policy_step(torch.tensor(logits), chosen, reward, baseline).tolist()


latency, distance = cache(table), cache(quality)
live = {}
for name, searcher in (("random", RandomSearch()), ("evolution", Evolution()), ("reinforce", Reinforce(gradient=gradient))):
    live[name] = run_search(searcher, Evaluator(SPACE, latency, distance, budget=400), seed=0)
    print(f"{figures.WORDS[name]:14} hypervolume {hypervolume(live[name].points, reference):.4f}; "
          f"recorded for seed 0: {figures.volumes()[name][0]:.4f}")
""")
code(r"""
fig, axis = plt.subplots(figsize=(5.6, 3.2))
for (name, found), colour in zip(live.items(), (PALETTE[6], PALETTE[0], PALETTE[1])):
    axis.scatter(*zip(*found.points), s=4, color=colour, alpha=0.35)
    best = [p for _, p in found.front()]
    axis.step(*zip(*best), where="post", color=colour, label=figures.WORDS[name])
axis.set(xlabel="predicted ms", ylabel="predicted distance")
axis.legend(fontsize=8)
show(fig, alt="400 networks that each of random search, evolution and the controller asked about, and their fronts.")
""")
md(r"""
One seed is an anecdote. Twenty, the same for all, with **optuna** (its NSGA-II and its TPE, at their defaults but for the population) as what one would use in production:
""")
code(r"""
show(figures.plot_volumes(), alt=figures.describe_volumes())
print("\n".join(figures.p_value_lines()))
medians = {n: statistics.median(v) for n, v in figures.volumes().items()}
for name, value in sorted(medians.items(), key=lambda item: -item[1]):
    print(f"{figures.WORDS[name]:16} median hypervolume {value:.4f}")
""")
md(r"""
The test is Wilcoxon's, on the twenty differences of the same seed. Mind the scale of the axis, too. On a smooth space of this size random search is no straw man: the front's bulk is easy, and what a searcher can win is the rim. Published comparisons that leave
random search out, or give it fewer evaluations, say little (Li and Talwalkar 2020).

**A killed search.** An evaluation may be a training of minutes. So each answer is written to a log before it is given. A searcher started again from the same seed asks the same questions, and as long as it does, the log answers:
""")
code(r"""
from fastgen_course.search.searchers import BudgetSpent

calls = []


def expensive(config):
    calls.append(config)
    if len(calls) == 40:
        raise KeyboardInterrupt("killed in the middle of answer 40")
    return quality(config)


with tempfile.TemporaryDirectory() as folder:
    log = Path(folder) / "search.jsonl"
    for attempt in (1, 2):
        search = Evaluator(SPACE, latency, expensive, budget=60, log=log)
        try:
            run_search(Evolution(20), search, seed=0)
        except KeyboardInterrupt as error:
            print(f"attempt {attempt}: {error}")
        print(f"attempt {attempt}: {len(search.asked)} answers, {search.computed} of them computed")
whole = run_search(Evolution(20), Evaluator(SPACE, latency, quality, budget=60), seed=0)
assert whole.asked == search.asked
try:
    Evaluator(SPACE, latency, quality, budget=0)
except ArchitectureError as error:
    print(error)
""")
md(r"""
At most the answer in hand is computed twice. Evaluations that do not wait for each other, such as the 300 of section 5, can run on **Ray** with the same log: `python -m fastgen_course.search.nas_records quality --workers 2`, and on a cluster likewise (14 shows the
workers).

## 8. Was the supernet right?

Everything so far was about predictions. Twenty networks, drawn at random, were trained each *by itself*, from fresh weights with the best initialisation of section 3, on the same lessons in the same order. Does the supernet order them as they turned out?
""")
code(r"""
show(figures.plot_ranks(), alt=figures.describe_ranks())
row = result("nas.rank_correlation")
print(f"rank correlation {row.value:.2f} over {row.extra['networks']} networks of {row.extra['updates']} updates each")
""")
md(r"""
The two need not agree: a slice shares its weights with millions of others, and a short training from fresh weights rewards what learns fast. The correlation says how much of the order survives both.

## 9. The plot that counts

Evolution looked for the front once more, with a larger budget. For each of three limits of milliseconds (of GENERATOR_BASE's, and with weights of at most 1 MB) its six best were put to the supernet itself, and the best of these is a **finalist**. The baselines stand on the same plot, with the same recipe and
budget for all, a slice of the supernet and a short matching: GENERATOR_BASE's plain width sweep, which is what one does without any search, and twenty random networks.
""")
code(r"""
show(figures.plot_networks(), alt=figures.describe_networks())
found = figures.plotted()
print(f"random networks that beat GENERATOR_BASE in both FID and ms: {figures.beaten_base()} of {len(found['random'])}")
for row in sorted(found["width"] + found["finalist"], key=lambda r: r.extra["predicted"]):
    print(f"{row.name.split('.')[-1]:12} {row.extra['predicted']:.3f} ms predicted, FID {row.value:6.2f} after "
          f"{row.extra['updates']} updates: {row.extra['architecture']}")
""")
md(r"""
Then the finalists were trained in full, 1,800 updates each, again by matching. Which of them is shipped was decided by `judge_train`; the FID below is by `judge_report`, with three sampling seeds.
""")
code(r"""
Markdown(figures.finalist_table())
""")
code(r"""
for name, target in (("speedup", "at least 3"), ("fid_ratio", "at most 1.05")):
    row = result(f"nas.{name}")
    low, high = row.spread
    print(f"nas.{name}: {row.value:.3f} [{low:.3f}, {high:.3f}] (wanted: {target})")
print(load_model("generator_nas").config)
card = load_card("generator_nas")
print(f"{card['bytes'] / 1e6:.2f} MB; GENERATOR_BASE {load_card('generator_base')['bytes'] / 1e6:.2f} MB")
""")
md(r"""
**Is the recording honest?** Both networks, exported in the same way and timed in turn, here; and what they draw for the same captions and noise:
""")
code(r"""
from fastgen_course.search.finalists import time_side_by_side

ours = load_model("generator_nas")
rows = time_side_by_side({"GENERATOR_BASE": base, "generator_nas": ours}, seconds=8.0)
print(rows.table())
with torch.no_grad():
    both = torch.cat([base(noise[:10], words[:10]), ours(noise[:10], words[:10])])
show(image_grid(both, 10, row_labels=["GENERATOR_BASE", "searched"], scale=0.9),
     alt="Ten pictures of GENERATOR_BASE and, below, those of the searched network for the same captions and noise.")
""")
md(r"""
What did it change? Compare the layers with GENERATOR_BASE's (`Architecture()` in section 1). At batch 1 the stem's matrix is read once for one picture, so a narrow stem saves memory traffic; at 28x28 every channel is paid for 784 times; and a pixel shuffle writes what a transposed
convolution would have to add up.

XX (one paragraph once the finalists are known: what the best one is, whether both targets are reached, and what limits it if not.)

## 10. GPU against CPU

The searched network, measured here and predicted for a named card. The table of section 4 was measured on a CPU at batch 1, and its answer holds there: on a card that waits for launches, fewer and wider layers win, and a search would be run again with that card's table.
""")
code(r"""
from fastgen_course.widgets.gpu_vs_cpu import gpu_vs_cpu

gpu_vs_cpu(ours, lambda batch: (torch.randn(batch, 64), words[:1].expand(batch, -1).contiguous()), batches=(1, 16, 64), threads=1, seconds=4.0);
""")
md(r"""
## 11. What you have

- A space is data: decisions, options, a count, and errors that name the field.
- A supernet answers for millions of networks after one training; the sandwich keeps its slices honest, and a rank correlation says how honest.
- Milliseconds are measured per layer and added; the error is held against the error of measuring twice.
- Random search is the baseline. Beating it takes equal budgets, many seeds, a fixed reference point and a paired test.
- Predictors propose, trainings decide: what is shipped was trained in full and scored by a judge that the search never met.

**What to read next**

- Elsken, Metzen and Hutter, *Neural Architecture Search: A Survey*, JMLR 2019.
- Cai et al., *Once-for-All*, ICLR 2020, and Yu et al., *BigNAS*, ECCV 2020: sections 2 and 9 at scale.
- Li et al., *GAN Compression*, CVPR 2020: the same for image-to-image generators.
- Tan et al., *MnasNet*, CVPR 2019: measured latency as an aim. Deb et al., *NSGA-II*, 2002.
- Li and Talwalkar, *Random Search and Reproducibility for NAS*, UAI 2020; Yu et al., *Evaluating the Search Phase of NAS*, ICLR 2020: two papers to read before believing a third.

Next: 11, pruning: instead of another architecture, less of the one that is there.
""")
code(r"""
progress("nas")
""")
