# --- a one-step student --------------------------------------------------------------------------


class OneStepStudent:
    """An adversarial one-step student: noise and caption to a latent vector in a single forward.

    It begins as a network of mean velocities or a reflowed one, and a projected discriminator (the
    one of GENERATOR_BASE) compares its decoded pictures with real ones while the coupling with the
    teacher's pairs is held loosely (Sauer et al. 2023, "Adversarial Diffusion Distillation").
    """

    def __init__(
        self, model: VelocityNet, vae: ConvVAE, judge: SlotJudge, rate: float, seed: int
    ) -> None:
        self.vae = vae.eval().requires_grad_(False)
        self.judge = judge.to(memory_format=torch.channels_last)
        self.rate = rate
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.discriminator = ProjectedDiscriminator(
                judge.config.channels, judge.config.features
            )
        self.optimiser = torch.optim.Adam(
            self.discriminator.parameters(), lr=rate, betas=(0.0, 0.99)
        )
        self.model = model

    def draw(self, noise: Tensor, words: Tensor) -> Tensor:
        """Latent vectors (B, latent), normalised, in one forward."""
        zero = torch.zeros(len(noise))
        times = (torch.ones(len(noise)), zero) if self.model.config.times == ("t", "r") else (zero,)
        return noise + self.model(noise, words, *times)

    def loss(
        self, batch: LatentBatch, images: Tensor, *, slots: float = 0.15, coupling: float = 0.5
    ) -> tuple[Tensor, dict[str, float]]:
        """One update of the discriminator, then the student's loss and its parts.

        `images` are real scenes of the batch's captions (B, 3, 28, 28).
        """
        drawn = self.draw(batch.noise, batch.words)
        fake = self.vae.decode(self.model.restore(drawn), batch.words)
        with torch.no_grad():
            real_features = judge_features(self.judge, images)
        features = judge_features(self.judge, fake)
        logits = zip(
            self.discriminator(real_features, batch.labels),
            self.discriminator([f.detach() for f in features], batch.labels),
            strict=True,
        )
        d_loss = sum(F.relu(1 - r).mean() + F.relu(1 + f).mean() for r, f in logits)
        self.optimiser.zero_grad(set_to_none=True)
        d_loss.backward()
        self.optimiser.step()
        self.discriminator.requires_grad_(False)
        adversarial = -sum(x.mean() for x in self.discriminator(features, batch.labels))
        self.discriminator.requires_grad_(True)
        read = slot_loss(self.judge.classify(features[-1].flatten(1)), batch.labels)
        held = F.mse_loss(drawn, batch.z)
        parts = {"d_loss": d_loss.item(), "slots": read.item(), "coupling": held.item()}
        return adversarial + slots * read + coupling * held, parts


