"""The Python API: ``model = genossm.load(DIR)``, then ``model.score``, ``model.embed`` and ``model.variants``.

>>> import genossm
>>> model = genossm.load("model")
>>> rows = model.score({"mine": "ACGTTGCA", "yours": "GATTACA"})
>>> [(row["record"], row["length"], row["status"]) for row in rows]
[('mine', 8, 'ok'), ('yours', 7, 'ok')]
>>> model.embed(["ACGTTGCA", "GATTACA"], pool=True).shape[0]
2
>>> for row in model.variants("my.vcf", "ref.fa"):
...     if row["status"] == "ok":
...         print(row["chrom"], row["pos"], row["ref"], row["alt"][:1], type(row["score"]).__name__)
...         break
chr1 1500 C G float
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from genossm import vocab
from genossm.data.batching import pad
from genossm.data.fasta import FastaOptions, Record, read_fasta
from genossm.data.reference import Reference
from genossm.data.score_tables import Row
from genossm.data.vcf import VcfReader
from genossm.errors import GenoSSMError
from genossm.models import LanguageModel
from genossm.models.likelihood import Reading
from genossm.models.pretrained import Pretrained, PretrainedOutput
from genossm.models.task import TaskModel
from genossm.stages import loading
from genossm.stages.scoring import Scorer
from genossm.stages.variants import VariantOptions, score_records, survey

Sequences = Mapping[str, str] | Iterable[tuple[str, str] | str] | str | os.PathLike[str]
"""Sequences by name, or (name, sequence), or sequences alone; or the path of a FASTA file."""


def records_of(sequences: Sequences) -> Iterator[Record]:
    """Records of what a user has at hand.

    Raises:
        GenoSSMError: a sequence that is empty or no DNA, named; or a fault of the FASTA file.
    """
    if isinstance(sequences, str | os.PathLike):
        yield from read_fasta(sequences, FastaOptions())
        return
    items: Iterable[tuple[str, str] | str] = sequences.items() if isinstance(sequences, Mapping) else sequences
    for number, item in enumerate(items, start=1):
        if isinstance(item, bytes):
            raise GenoSSMError("bytes, not text: decode it", record=f"sequence_{number}", code="E_BAD_CHAR")
        name, text = (f"sequence_{number}", item) if isinstance(item, str) else item
        try:
            tokens = vocab.encode(text)
        except ValueError as error:
            raise GenoSSMError(str(error), record=name, code="E_BAD_CHAR") from None
        if not len(tokens):
            raise GenoSSMError("no sequence", record=name, code="E_EMPTY_RECORD")
        yield Record(name, "", number, tokens, np.zeros(len(tokens), dtype=bool))


class GenomeModel(Pretrained):
    """A loaded model: what the commands do, for Python. As a torch module see :class:`Pretrained`.

    A model of a labelled task (``genossm finetune``) scores, and does nothing else.
    """

    def _check_readable(self) -> None:
        if isinstance(self.model, TaskModel):
            raise GenoSSMError("a model of a labelled task reads records alone: use .score")

    def forward(
        self, input_ids: Tensor, mask: Tensor | None = None, *, output_hidden_states: bool = False
    ) -> PretrainedOutput:
        """See :meth:`Pretrained.forward`.

        Raises:
            GenoSSMError: the model is one of a labelled task.
        """
        self._check_readable()
        return super().forward(input_ids, mask, output_hidden_states=output_hidden_states)

    def score(
        self,
        sequences: Sequences,
        *,
        passes: int = 8,
        window: int | None = None,
        overlap: int = 0,
        strands: Literal["auto", "both", "given"] = "auto",
    ) -> Iterator[Row]:
        """A row a record, as ``genossm score`` writes it: a dict by column, None where there is no value.

        Args:
            sequences: by name, as pairs, or alone; or the path of a FASTA file.
            passes, window, overlap: see :class:`genossm.models.likelihood.Reading`.
            strands: ``auto`` is as the model was trained.

        Raises:
            GenoSSMError: a sequence that is no DNA.
        """
        reading = Reading(passes, True, window, overlap)
        scorer = Scorer.of(self.model, self.config, reading, strands)
        for _, row, _ in scorer.rows(records_of(sequences), 1):
            yield row

    def embed(
        self,
        input_ids: Tensor | Sequences,
        mask: Tensor | None = None,
        *,
        strands: Literal["both", "given"] = "both",
        pool: bool = False,
    ) -> Tensor:
        """Embeddings, see :mod:`genossm.models.embeddings`: (batch, seqlen, width), or pooled (batch, width).

        Args:
            input_ids: the checkpoint's ids, int64 (batch, seqlen); or sequences as in :meth:`score`, which are padded
                to the longest.
            mask: bool (batch, seqlen), False at padding; made here where sequences are given.

        Raises:
            GenoSSMError: a sequence that is no DNA; no sequence; the model is one of a labelled task.
        """
        self._check_readable()
        if isinstance(input_ids, Tensor):
            return super().embed(input_ids, mask, strands=strands, pool=pool)
        given = [record.tokens for record in records_of(input_ids)]
        if not given:
            raise GenoSSMError("no sequence to embed")
        ids, where = pad(given)
        device = next(self.parameters()).device
        own = self.model.translate(torch.from_numpy(ids).to(device))
        with torch.inference_mode():
            return super().embed(own, torch.from_numpy(where).to(device), strands=strands, pool=pool)

    def variants(
        self,
        vcf: str | os.PathLike[str],
        reference: str | os.PathLike[str],
        *,
        options: VariantOptions | None = None,
        strict: bool = True,
    ) -> Iterator[dict[str, Any]]:
        """A row an allele, as ``genossm variants`` writes it.

        Args:
            vcf: VCF or BCF, a file. reference: the FASTA that it is about.
            options: see :class:`genossm.stages.variants.VariantOptions`.
            strict: a fault of a record is an error; else it is a status.

        Raises:
            GenoSSMError: a fault of the files; the model is a classifier.
        """
        if not isinstance(self.model, LanguageModel):
            raise GenoSSMError("the model is a classifier; variants are scored by a language model")
        with Reference(Path(reference)) as opened:
            survey(VcfReader(vcf), opened, strict=strict)
            for record, scores in score_records(self.model, opened, VcfReader(vcf), options):
                for score in scores:
                    yield {
                        "chrom": record.chrom, "pos": record.pos, "id": record.id, "ref": record.ref, "alt": score.alt,
                        "score": score.score, "llr_site": score.llr_site, "llr_window": score.llr_window,
                        "embedding_distance": score.embedding_distance, "status": score.status,
                    }  # fmt: skip


def load(folder: str | os.PathLike[str], device: torch.device | str = "cpu") -> GenomeModel:
    """The model of a checkpoint folder for use in Python, in evaluation mode: ``genossm.load``.

    ``.score``, ``.embed`` and ``.variants`` are the commands of those names. ``model(input_ids)`` takes the ids of the
    checkpoint, int64 (batch, seqlen), and gives ``.logits`` and ``.last_hidden_state``; with
    ``output_hidden_states=True`` also ``.hidden_states``; without a mask it computes what the official code computes.
    ``model.tokenizer`` makes input_ids of text.

    Raises:
        GenoSSMError: the folder is missing, unfinished, damaged, or not ours; the message names the file.
    """
    found = loading.load(folder, device, tasks=True)
    return GenomeModel(found.model, found.config).eval()
