"""A reference genome at hand: any stretch of any contig of a FASTA, plain, gzip or BGZF.

The file is read once, from end to end and by the input policy of :mod:`genossm.data.fasta`; its tokens, a byte a base,
lie in an unnamed temporary file that is mapped into memory. So memory does not grow with the genome, and an index
beside the FASTA, which may be stale, is never read.
"""

from __future__ import annotations

import os
import tempfile
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from genossm.data.contigs import ContigNames
from genossm.data.fasta import FastaOptions, Header, Warnings, stream_fasta

Tokens = npt.NDArray[np.uint8]


class Reference:
    """The contigs of a FASTA.

    Attributes:
        lengths: contig names and lengths in bp, in the order of the file.
        names: the contigs by any of their names.
        sha256: of the FASTA's bytes.

    Raises:
        GenoSSMError: as :func:`genossm.data.fasta.stream_fasta`.
    """

    def __init__(
        self, path: str | os.PathLike[str], options: FastaOptions | None = None, warnings: Warnings | None = None
    ) -> None:
        self._file = tempfile.TemporaryFile(prefix="genossm-")  # noqa: SIM115 - closed by __exit__
        try:
            reader = stream_fasta(path, options or FastaOptions(), warnings)
            contigs: list[tuple[str, str]] = []
            self.lengths: dict[str, int] = {}
            self._starts: dict[str, int] = {}
            total, name = 0, ""
            for event in reader:
                if isinstance(event, Header):
                    name = event.name
                    contigs.append((name, event.description))
                    self._starts[name], self.lengths[name] = total, 0
                else:
                    self._file.write(event.tokens.tobytes())
                    self.lengths[name] += len(event.tokens)
                    total += len(event.tokens)
            self._file.flush()
        except BaseException:
            self._file.close()
            raise
        self.sha256 = reader.source.sha256
        self.names = ContigNames(contigs)
        self._tokens = np.memmap(self._file, dtype=np.uint8, mode="r", shape=(total,))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the space back."""
        del self._tokens
        self._file.close()

    def read(self, name: str, start: int, end: int) -> Tokens:
        """Token ids uint8, shape (end - start,), of bases [start, end) of a contig, 0 <= start <= end <= its length."""
        assert 0 <= start <= end <= self.lengths[name]
        at = self._starts[name]
        return np.array(self._tokens[at + start : at + end])
