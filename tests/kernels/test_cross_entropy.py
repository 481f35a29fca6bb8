"""The cross entropy of a tiny vocabulary on the CPU; its Triton kernels are checked in tests/kernels/triton."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from genossm.kernels.cross_entropy import cross_entropy, reference


def test_blocks_equal_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr(reference, "BLOCK", 7)
    hidden, weight = torch.randn(2, 11, 5).double().requires_grad_(), torch.randn(16, 5).double().requires_grad_()
    labels = torch.randint(0, 16, (2, 11))
    labels[0, :4] = -100
    loss = cross_entropy(hidden, weight, labels)
    wanted = F.cross_entropy((hidden @ weight.T).flatten(0, 1), labels.flatten(), reduction="none").view(2, 11)
    assert (loss - wanted).abs().max() < 1e-14
    ours, theirs = (torch.autograd.grad(value.sum(), (hidden, weight)) for value in (loss, wanted))
    assert all((a - b).abs().max() < 1e-14 for a, b in zip(ours, theirs, strict=True))


def test_no_tokens() -> None:
    assert cross_entropy(torch.zeros(0, 5), torch.zeros(16, 5), torch.zeros(0, dtype=torch.long)).shape == (0,)


def test_misfits_are_named() -> None:
    hidden, labels = torch.zeros(3, 5), torch.zeros(3, dtype=torch.long)
    with pytest.raises(ValueError, match="a vocabulary of at most 16, not 17"):
        cross_entropy(hidden, torch.zeros(17, 5), labels)
    with pytest.raises(ValueError, match=r"hidden must be \(3, 4\), is \(3, 5\)"):
        cross_entropy(hidden, torch.zeros(16, 4), labels)
    with pytest.raises(ValueError, match=r"labels must be int64, is torch\.int32"):
        cross_entropy(hidden, torch.zeros(16, 5), labels.int())
    with pytest.raises(ValueError, match=r"bias must be \(16,\), is \(5,\)"):
        cross_entropy(hidden, torch.zeros(16, 5), labels, bias=torch.zeros(5))
