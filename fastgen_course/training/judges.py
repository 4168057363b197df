"""Train the judges on compositions of train photos, all combinations included.

A judge learns the garment from its label and from what `judge_plain`, which reads the plain
photograph, says of it: soft labels tell at once how alike a shirt and a coat are (Hinton et al.
2015, "Distilling the Knowledge in a Neural Network").
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import torch
import torch.nn.functional as F

from fastgen_course.checkpoints import load_model, save_checkpoint
from fastgen_course.datasets.captions import EMPTY, FREE, SLOTS
from fastgen_course.datasets.fashion import load_fashion
from fastgen_course.datasets.scenes import draw_labels, real_scenes, scene_batches
from fastgen_course.models.judges import (
    JUDGE_PLAIN,
    JUDGE_REPORT,
    JUDGE_TRAIN,
    JudgeConfig,
    SlotJudge,
    label_slots,
    slot_loss,
)
from fastgen_course.timing import machine
from fastgen_course.training.loop import Training, cosine_with_warmup, set_rate

RATE = 2e-3  # AdamW's, at its height
TEMPERATURE = 2.0  # of the soft labels, which are logits divided by it


class JudgeRecipe(NamedTuple):
    """How a judge is trained, within three quarters of an hour on one core.

    `mirrored` shows half of the batches mirrored: photographs of tops and bags have no left and
    right. But shoes have: all of them point to the left, and a judge that has to know them mirrored
    too, in as many steps, knows them less well.

    `disturbed` further steps show scenes with noise and blur. A judge that never saw any takes the
    faintest noise on pixel art for a photograph, since no real scene of that style has any, and so
    misreads whatever a model draws.
    """

    config: JudgeConfig
    seed: int
    steps: int
    batch: int
    mirrored: bool
    disturbed: int = 0


RECIPES: dict[str, JudgeRecipe] = {
    "judge_train": JudgeRecipe(JUDGE_TRAIN, 11, 9000, 64, True, 3000),
    "judge_report": JudgeRecipe(JUDGE_REPORT, 22, 9000, 64, False, 3000),
    # A CNN of the same kind on plain photographs says what composing costs.
    "judge_plain": JudgeRecipe(JUDGE_PLAIN, 22, 3000, 128, True),
}


def fashion_sha256() -> str:
    """One hash for the photographs and labels that every fashion model was trained on."""
    digest = hashlib.sha256()
    for split in ("train", "test"):
        for tensor in load_fashion(split):
            digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def _plain_batches(batch: int, generator: torch.Generator):
    photos, labels = load_fashion("train")
    while True:
        rows = torch.randint(len(photos), (batch,), generator=generator)
        slots = torch.full((batch, len(SLOTS)), FREE)
        slots[:, 2] = labels[rows]
        yield photos[rows, None].float() / 127.5 - 1, slots, None


def _scene_batches(batch: int, generator: torch.Generator):
    soft = soft_garments()
    for scenes in scene_batches("train", batch, generator, held_out=None):
        yield scenes.images, scenes.labels, soft[scenes.rows]


def disturb(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Images (B, 3, H, W) with noise, blur, both or neither, each in half of them; in [-1, 1].

    Noise has a deviation of up to 0.15; a blurred image is up to seven tenths its mean over 3x3
    pixels, weighted 1-2-1.
    """
    batch = len(images)
    chance, amount = torch.rand(2, batch, 2, 1, 1, 1, generator=generator)
    blurred, sigma = (amount * (chance < 0.5)).unbind(1)
    kernel = torch.tensor([1.0, 2.0, 1.0]) / 4
    kernel = (kernel[:, None] * kernel).expand(images.shape[1], 1, 3, 3)
    padded = F.pad(images, (1, 1, 1, 1), mode="replicate")
    smooth = F.conv2d(padded, kernel, groups=images.shape[1])
    noise = torch.randn(images.shape, generator=generator)
    return (images.lerp(smooth, 0.7 * blurred) + 0.15 * sigma * noise).clamp(-1, 1)


@torch.no_grad()
def soft_garments() -> torch.Tensor:
    """What `judge_plain` makes of each training photograph: shares (60000, 10) at TEMPERATURE."""
    plain = load_model("judge_plain")
    photos = load_fashion("train").images[:, None]
    logits = [plain(part.float() / 127.5 - 1)["garment"] for part in photos.split(500)]
    return (torch.cat(logits)[:, :EMPTY] / TEMPERATURE).softmax(1)


def soft_label_loss(
    logits: torch.Tensor, soft: torch.Tensor, garments: torch.Tensor
) -> torch.Tensor:
    """T^2 KL(soft || softmax(logits / T)), the mean over the scenes that are not empty.

    Args:
        logits: (B, 11) of the garment slot; the empty scene's is left aside.
        soft: (B, 10), the teacher's shares at temperature T.
        garments: (B,) int64, the true garment.
    """
    present = garments != EMPTY
    ours = (logits[present, :EMPTY] / TEMPERATURE).log_softmax(1)
    return TEMPERATURE**2 * F.kl_div(ours, soft[present], reduction="batchmean")


@torch.no_grad()
def accuracies_on_test(judge: SlotJudge, n: int = 10_000, seed: int = 5) -> dict[str, float]:
    """The share of real test scenes whose slot the judge names, by slot, and garment by style."""
    generator = torch.Generator().manual_seed(seed)
    if judge.config.in_channels == 1:
        photos, labels = load_fashion("test")
        found = label_slots(judge, photos[:, None].float() / 127.5 - 1)
        return {"garment_plain": (found[:, 2] == labels).float().mean().item()}
    labels = draw_labels(n, generator)
    labels[: n // 10] = draw_labels(n // 10, generator, held_out=True)
    right = label_slots(judge, real_scenes(labels, "test", generator)) == labels
    applies = labels != FREE
    result = {s: right[applies[:, i], i].float().mean().item() for i, s in enumerate(SLOTS)}
    garment = labels[:, 2] != EMPTY
    result["garment"] = right[garment, 2].float().mean().item()
    result["exact"] = right.all(1).float().mean().item()
    for k, style in enumerate(SLOTS["style"]):
        for j, size in enumerate(SLOTS["size"]):
            rows = garment & (labels[:, 4] == k) & (labels[:, 0] == j)
            result[f"garment, {size} {style}"] = right[rows, 2].float().mean().item()
        rows = garment & (labels[:, 4] == k)
        result[f"garment, {style}"] = right[rows, 2].float().mean().item()
    return result


def train_judge(name: str, steps: int | None = None, quiet: bool = False) -> dict:
    """Train `judge_train`, `judge_report` or `judge_plain`; ships it and returns its card."""
    config, seed, recipe_steps, batch, mirrored, disturbed = RECIPES[name]
    clean = steps or recipe_steps
    steps = clean + disturbed
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # layer initialisation draws from the global generator
        judge = SlotJudge(config).to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(judge.parameters(), lr=RATE, weight_decay=0.02)
    generator = torch.Generator().manual_seed(seed)
    training = Training(name, {"judge": judge, "optimiser": optimiser}, generator, steps)
    training.resume()
    make = _plain_batches if config.in_channels == 1 else _scene_batches
    batches = make(batch, generator)

    def step(index: int) -> dict[str, float]:
        judge.train()
        if index == clean:  # a training of its own, that starts from the first one's weights
            optimiser.state.clear()
            generator.manual_seed(seed + 1)
        if index < clean:
            set_rate(optimiser, RATE * cosine_with_warmup(index, clean))
        else:
            set_rate(optimiser, RATE / 3 * cosine_with_warmup(index - clean, disturbed))
        images, labels, soft = next(batches)
        if mirrored and torch.rand((), generator=generator) < 0.5:
            images = images.flip(-1)
        if index >= clean:
            images = disturb(images, generator)
        logits = judge(images.contiguous(memory_format=torch.channels_last))
        loss = slot_loss(logits, labels)
        if soft is not None:
            loss = loss + soft_label_loss(logits["garment"], soft, labels[:, 2])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        return {"loss": loss.item()}

    def report(index: int) -> None:
        if index % 1000 == 0:
            found = accuracies_on_test(judge, 2000)
            print(name, index, f"{training.seconds:.0f} s", found, flush=True)

    training.run(step, quiet=quiet, on_log=report)
    card = save_checkpoint(
        name,
        judge,
        {
            "seed": seed,
            "command": f"python -m fastgen_course train {name}",
            "data_sha256": fashion_sha256(),
            "minutes": round(training.seconds / 60, 1),
            "machine": machine(),
            "metrics": accuracies_on_test(judge),
            "steps": steps,
        },
    )
    training.finish()
    return card
