"""Who else does the work of a block, as others install it. A package that is absent raises ImportError by its name.

All of them get what we have: the same allocator settings, threads, device, precision and inputs.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

from genossm.kernels.benchmark import D_MODEL, D_STATE, Entrant, Problem, noise

HEADS = 8

Layer = Callable[[], nn.Module]


def _entrant(name: str, build: Layer, device: str | None = None) -> Entrant:
    """A layer (batch, seqlen, D_MODEL) to the same, or to a tuple that begins with it."""

    def prepare(seqlen: int, where: torch.device) -> Problem:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # theirs, not ours
            torch.manual_seed(0)
            layer = build().to(where)
        x = noise(1, seqlen, D_MODEL, seed=1).to(where).requires_grad_()

        def run() -> Tensor:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                y = layer(x)
            return y[0] if isinstance(y, tuple) else y

        return Problem(run, (x, *layer.parameters()))

    return Entrant(name, prepare, device)


def _transformers_mamba(*, use_mambapy: bool) -> Layer:
    def build() -> nn.Module:
        if use_mambapy:
            importlib.import_module("mambapy.pscan")  # transformers would go on without it, silently
        from transformers.models.mamba.modeling_mamba import MambaConfig, MambaMixer
        from transformers.utils import logging

        logging.set_verbosity_error()  # that the CUDA kernels are absent is known
        config = MambaConfig(hidden_size=D_MODEL, state_size=D_STATE, num_hidden_layers=1, use_mambapy=use_mambapy)
        mixer: nn.Module = MambaMixer(config, 0)
        return mixer

    return build


def _transformers_mamba2() -> nn.Module:
    from transformers.models.mamba2.modeling_mamba2 import Mamba2Config, Mamba2Mixer
    from transformers.utils import logging

    logging.set_verbosity_error()
    config = Mamba2Config(
        hidden_size=D_MODEL, state_size=D_STATE, num_heads=HEADS, head_dim=64, n_groups=1, num_hidden_layers=1
    )
    mixer: nn.Module = Mamba2Mixer(config, 0)
    with torch.no_grad():  # the mixer alone leaves some of them as they were allocated
        for parameter in mixer.parameters():
            parameter.uniform_(-0.1, 0.1)
    return mixer


def mambapy_block(d_model: int = D_MODEL) -> nn.Module:
    """mambapy's Mamba block with its own scan, which needs no CUDA build."""
    from mambapy.mamba import MambaBlock, MambaConfig

    block: nn.Module = MambaBlock(MambaConfig(d_model=d_model, n_layers=1, d_state=D_STATE, use_cuda=False))
    return block


def _mamba_ssm() -> nn.Module:
    from mamba_ssm import Mamba

    block: nn.Module = Mamba(d_model=D_MODEL, d_state=D_STATE)
    return block


def _mamba2_ssm() -> nn.Module:
    from mamba_ssm import Mamba2

    block: nn.Module = Mamba2(d_model=D_MODEL, d_state=D_STATE)
    return block


class _LSTM(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(D_MODEL, D_MODEL, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, seqlen, D_MODEL) to the same."""
        y: Tensor = self.lstm(x)[0]
        return y


class _Transformer(nn.Module):
    """torch's encoder layer through scaled_dot_product_attention: its other fast path holds seqlen^2 numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(
            D_MODEL, HEADS, 4 * D_MODEL, dropout=0.0, batch_first=True, norm_first=True
        )

    def forward(self, x: Tensor) -> Tensor:
        """(batch, seqlen, D_MODEL) to the same."""
        before = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            y: Tensor = self.layer(x)
        finally:
            torch.backends.mha.set_fastpath_enabled(before)
        return y


MAMBA2 = (
    _entrant("transformers Mamba-2", _transformers_mamba2),
    _entrant("mamba_ssm Mamba-2", _mamba2_ssm, "cuda"),
)
MAMBA = (
    _entrant("transformers Mamba", _transformers_mamba(use_mambapy=False)),
    _entrant("transformers Mamba, mambapy", _transformers_mamba(use_mambapy=True)),
    _entrant("mambapy", mambapy_block),
    _entrant("mamba_ssm Mamba", _mamba_ssm, "cuda"),
)
OTHERS = (_entrant("torch LSTM", _LSTM), _entrant("torch SDPA transformer layer", _Transformer))
