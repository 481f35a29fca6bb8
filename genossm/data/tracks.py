"""Tracks: a number a base, as bedGraph (text) or bigWig (pyBigWig), by the name of the file. N has no value."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from genossm.data.disk_space import DiskSpace, release_zeros
from genossm.errors import GenoSSMError
from genossm.files import atomic_path

BIGWIG = (".bw", ".bigwig")
BEDGRAPH = (".bedgraph", ".bg")

Stretch = tuple[str, int, npt.NDArray[np.float32]]
"""Contig, start, and values float32 (n,), NaN where there is none."""
_AT_A_TIME = 1 << 20
_BIGWIG_MAGIC = (0x888FFC26).to_bytes(4, sys.byteorder)
"""It closes the file, too."""
_BASE_BYTES = 7
"""More than what a base takes: four bytes, 32 in every 16, 64, 256 ... bases of the zoom levels, and zlib's own."""
_RUN_BYTES = 2048
"""More than what a run takes: its header, its place in the index, and two bins of each of the ten zoom levels."""
_CONTIG_BYTES = 64
"""More than what a contig takes in the tree of their names, padded to the longest, but for that name."""


def check_track(path: Path) -> None:
    """Refuse a name that says no format.

    Raises:
        GenoSSMError: neither bigWig nor bedGraph.
    """
    if path.suffix.lower() not in (*BIGWIG, *BEDGRAPH):
        raise GenoSSMError(f"{path.suffix!r} is no track; name it .bw or .bedgraph", path=path)


def write_track(path: Path, contigs: Sequence[tuple[str, int]], stretches: Iterable[Stretch]) -> None:
    """Write a track, which appears whole or not at all.

    Args:
        path: its ending says the format.
        contigs: names and lengths in bp, of all contigs, in the order of the stretches.
        stretches: in that order and by rising start, without overlap.
    """
    with atomic_path(path) as temporary:
        if path.suffix.lower() in BIGWIG:
            _write_bigwig(temporary, contigs, stretches)
            return
        with temporary.open("w", encoding="utf-8", newline="\n") as handle:
            handle.write('track type=bedGraph name="genossm" description="log-likelihood in nats a base"\n')
            for contig, start, values in stretches:
                for at, run in _runs(values):
                    rows = (
                        f"{contig}\t{start + at + i}\t{start + at + i + 1}\t{value:.4f}\n"
                        for i, value in enumerate(run.tolist())
                    )
                    handle.writelines(rows)


def _runs(values: npt.NDArray[np.float32]) -> Iterable[tuple[int, npt.NDArray[np.float32]]]:
    """Stretches of finite values, and where they begin, cut to a bounded length."""
    finite = np.concatenate([[False], np.isfinite(values), [False]])
    edges = np.flatnonzero(finite[1:] != finite[:-1])
    for first, last in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        for at in range(first, last, _AT_A_TIME):
            yield at, values[at : min(at + _AT_A_TIME, last)]


def _write_bigwig(path: Path, contigs: Sequence[tuple[str, int]], stretches: Iterable[Stretch]) -> None:
    import pyBigWig

    names = 2 * len(contigs) * (max((len(contig.encode()) for contig, _ in contigs), default=0) + _CONTIG_BYTES)
    DiskSpace(path).take(names)  # a full disk shows before anything is held: the file below begins empty again
    wig = pyBigWig.open(str(path), "w")
    try:
        space = DiskSpace(path)
        space.take(names)
        wig.addHeader(list(contigs))
        for contig, start, values in stretches:
            for at, run in _runs(values):
                space.take(len(run) * _BASE_BYTES + _RUN_BYTES)
                wig.addEntries(contig, start + at, values=np.asarray(run, dtype=np.float64), span=1, step=1)
    finally:
        wig.close()
    release_zeros(path, _BIGWIG_MAGIC)
