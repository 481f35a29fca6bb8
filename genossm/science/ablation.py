"""Does the start matter once the model is trained? HiPPO, a random matrix and a random diagonal, frozen and trained."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genossm.baselines.digits import digit_sequences
from genossm.config import ModelConfig
from genossm.models.backbone import Block
from genossm.report.plots import Plot
from genossm.science.memory_capacity import random_dense, random_diagonal
from genossm.science.result import Claim, Figure, Setting
from genossm.science.training import fit

STATES, D_MODEL, LAYERS, BATCH = 32, 16, 2, 50
STARTS = {"HiPPO-LegS": None, "random dense": random_dense, "random diagonal": random_diagonal}


class LastStep(nn.Module):
    """Numbers in, blocks of LSSL, ten classes from the last step: all that was read must be in the state then."""

    def __init__(self, start: str, frozen: bool, generator: torch.Generator) -> None:
        super().__init__()
        config = ModelConfig(
            d_model=D_MODEL, n_layer=LAYERS, expand=1, d_state=STATES, bidirectional=False, objective="causal",
            mixer="lssl_fixed" if frozen else "lssl",
        )  # fmt: skip
        self.encoder = nn.Linear(1, D_MODEL)
        self.blocks = nn.ModuleList(Block(config) for _ in range(LAYERS))
        self.norm, self.decoder = nn.RMSNorm(D_MODEL), nn.Linear(D_MODEL, 10)
        make = STARTS[start]
        for block in self.blocks if make else ():
            A, B = make(STATES, generator)  # type: ignore[misc]
            core = block.mixer.core  # type: ignore[union-attr]
            with torch.no_grad():
                core.A.copy_(A)  # type: ignore
                core.B.copy_(B.expand(D_MODEL, -1))  # type: ignore

    def forward(self, sequences: Tensor) -> Tensor:
        """(batch, seqlen) to logits (batch, 10)."""
        x = self.encoder(sequences[..., None])
        for block in self.blocks:
            x, _ = block(x)
        return self.decoder(self.norm(x[:, -1]))


def accuracy(start: str, frozen: bool, data: tuple[Tensor, ...], epochs: int, seed: int) -> float:
    """Test accuracy after ``epochs`` passes over the training set."""
    train, test, train_labels, test_labels = data
    torch.manual_seed(seed)
    model = LastStep(start, frozen, torch.Generator().manual_seed(seed))
    per_epoch = len(train) // BATCH
    order = torch.Generator().manual_seed(seed + 1)
    rows = torch.cat([torch.randperm(len(train), generator=order)[: per_epoch * BATCH] for _ in range(epochs)])

    def loss(step: int) -> Tensor:
        batch = rows[step * BATCH : (step + 1) * BATCH]
        return F.cross_entropy(model(train[batch]), train_labels[batch])

    fit(model, loss, epochs * per_epoch, lr=4e-3)
    with torch.inference_mode():
        return float((model(test).argmax(-1) == test_labels).double().mean())


def check(setting: Setting) -> Claim:
    """Accuracies of three starts, A and dt frozen or trained."""
    side, epochs, limit = (8, 2, 400) if setting.quick else (16, 8, None)
    train, test, train_labels, test_labels = digit_sequences(side, setting.seed, limit)
    data = (
        *(torch.from_numpy(part).float() for part in (train, test)),
        *(torch.from_numpy(part).long() for part in (train_labels, test_labels)),
    )
    found = {}
    for start in STARTS:
        for frozen in (True, False):
            name = f"{start}, {'frozen' if frozen else 'trained'}"
            found[name] = accuracy(start, frozen, data, epochs, setting.seed)
            setting.advance(name)
    judged = not setting.quick
    figures = [Figure(name, value) for name, value in found.items()]
    for how in ("frozen", "trained"):
        others = max(found[f"random dense, {how}"], found[f"random diagonal, {how}"])
        figures.append(
            Figure(
                f"HiPPO over the better random start, {how}", found[f"HiPPO-LegS, {how}"] - others, 0.0, judged=judged
            )
        )
    noise = (0.25 / len(test)) ** 0.5
    plot = Plot(f"Digits of {side * side} steps", "start", "test accuracy", bars=found, levels={"chance": 0.1})
    return Claim(
        "A HiPPO start leads to a better model than a random one, also when the state matrix is trained.",
        f"two layers of LSSL, {STATES} states, {D_MODEL} channels, last step read out, {epochs} epochs, one seed; "
        f"one standard error is at most {noise:.3f}",
        figures,
        [plot],
    )
