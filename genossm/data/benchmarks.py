"""The published benchmarks: where each task comes from, how it is judged, and what has been reported on it.

Published figures are fractions, as their papers print them; a spread, where one is printed, is not repeated here. The
checksum of a folder is that of :func:`genossm.data.readers.checksum`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from genossm.errors import GenoSSMError

Metric = Literal["accuracy", "mcc", "f1"]

CADUCEUS = "Schiff et al. 2024, Caduceus, arXiv:2403.03234"
JANUS = "Duan et al. 2025, JanusDNA, arXiv:2505.17257"
MDLM = "Sahoo et al. 2024, MDLM, arXiv:2406.07524"
DNABERT2 = "Zhou et al. 2023, DNABERT-2, arXiv:2306.15006"


@dataclass(frozen=True)
class Protocol:
    """How the published figures were reached; a run that does otherwise is not comparable.

    Attributes:
        splits: in words.
        seeds: repetitions whose mean is reported.
        epochs, learning_rates: of the published models.
        choose: what is chosen on, in words.
    """

    splits: str
    seeds: int
    epochs: str
    learning_rates: str
    choose: str


@dataclass(frozen=True)
class Task:
    """One task: its folder in a mirror, its metric, published figures by model, and checksums of its splits."""

    name: str
    folder: str
    metric: Metric
    published: Mapping[str, float] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    """path in the mirror: URL."""
    sha256: Mapping[str, str] = field(default_factory=dict)
    """train and test: checksum of the folder."""
    needs_reference: bool = False


@dataclass(frozen=True)
class Suite:
    """A benchmark."""

    name: str
    title: str
    source: str
    citation: str
    protocol: Protocol
    sources_of_figures: Mapping[str, str]
    tasks: tuple[Task, ...]

    def task(self, name: str) -> Task:
        """The task of that name.

        Raises:
            GenoSSMError: there is none; the message lists them.
        """
        for task in self.tasks:
            if name in (task.name, task.folder):
                return task
        raise GenoSSMError(f"{self.name} has no task {name!r}; it has {', '.join(task.name for task in self.tasks)}")


def suite(name: str) -> Suite:
    """The suite of that name.

    Raises:
        GenoSSMError: there is none.
    """
    if name not in SUITES:
        raise GenoSSMError(f"no suite {name!r}; there are {', '.join(SUITES)}")
    return SUITES[name]


# -------------------------------------------------------------------------------------------------- Genomic Benchmarks

_GB_MODELS = (
    "CNN 264K", "HyenaDNA 436K", "Mamba 468K", "Caduceus w/o equivariance 470K", "Caduceus-Ph 470K", "Caduceus-PS 470K",
    "Caduceus MLM 467K", "ConvNova 386K", "JanusDNA 426K",
)  # fmt: skip
_GB = {
    "dummy_mouse_enhancers_ensembl": (
        ("negative", "positive"), (.715, .780, .743, .770, .754, .793, .810, .784, .770),
        "7e7a94085af1f271ebffefda57c21acc1cf62390eccf85d494a9c468559d4ced",
        "de426971b6300440adb96c62d09df6dbe09ed3b06eb180c869fd109ff62b8836",
    ),
    "demo_coding_vs_intergenomic_seqs": (
        ("coding_seqs", "intergenomic_seqs"), (.892, .904, .904, .908, .915, .910, .913, .943, .912),
        "8d0510145c1a009c9ccb96bffcb69ec0866c89feb3de6eb75d2039619c8997bd",
        "6f5a4c55d49a634cbdd39c10b80b1d35d1e11d3f914f5f697642aef7d0197312",
    ),
    "demo_human_or_worm": (
        ("human", "worm"), (.942, .964, .967, .970, .973, .968, .970, .967, .971),
        "34fe3452c8b339534c5b7349028e41d6c7263ed2623cda21dabe8db2ef3475f2",
        "da6c3a1597547da6f27376c3e72024af0a429c6dbe051d60bcda6468fb8a67b0",
    ),
    "human_enhancers_cohn": (
        ("negative", "positive"), (.702, .729, .732, .741, .747, .745, .737, .743, .741),
        "6f0acd0246d0a1f4b66f512a9a94f3706552f65c33e4f6e3b14740fad9c071d9",
        "360d550ffdb058d1a8c93ba84ab0f08e39d71497ac05522f02f1066300d39f44",
    ),
    "human_enhancers_ensembl": (
        ("negative", "positive"), (.744, .849, .862, .883, .893, .900, .907, .900, .897),
        "b3316a6e009ead8d26fed53bc1e9ea6a8c43e31055184ea4ce58259aae9e7eef",
        "32d3f531f190c664458764afd18b43d462ca855bf58c682dd05848a63e83bd72",
    ),
    "human_ensembl_regulatory": (
        ("enhancer", "ocr", "promoter"), (.872, .869, .814, .871, .872, .873, .874, .873, .877),
        "01a193d852f493a20646fd9a53c60f6f0601dffab3799ef296d595cad1f6c118",
        "bc88ed02d632cc2d4545c1bce9ac8df93f32f11129b00afbaf9760b70b7e0219",
    ),
    "human_ocr_ensembl": (
        ("negative", "positive"), (.698, .783, .815, .818, .828, .818, .821, .793, .822),
        "87829b4bee6dcd24b0405aabdee88a404453d93b766d3d9dc2eb4fa82fb7d3f2",
        "042d6482e4f0e09dc7b3249015f39d5eb4eda913f1d6c0b6a0bb86682a29d4b3",
    ),
    "human_nontata_promoters": (
        ("negative", "positive"), (.861, .944, .933, .933, .946, .945, .935, .951, .957),
        "ddd277f79681b32bbf91372f7707969bc7e1600b7a7590a2c16e17d97ac124fa",
        "40278b15c4dedc806764dc74988bb296ee3875894b7b912143e58549a6098e27",
    ),
    "drosophila_enhancers_stark": (
        ("negative", "positive"), (),
        "0b9d1e7b2185545cd2a0c14f67ac609daa7efc235fe761006b1d78d45bacd42c",
        "e1cd4717bc127a5e8041517666d96898a33cecfb89007aa0b8250b11b6edf74d",
    ),
}  # fmt: skip
_GB_FILES = "https://raw.githubusercontent.com/ML-Bioinfo-CEITEC/genomic_benchmarks/605d8539/datasets"


def _list_files(name: str, classes: tuple[str, ...]) -> dict[str, str]:
    paths = [f"{split}/{label}.csv.gz" for split in ("train", "test") for label in classes]
    return {path: f"{_GB_FILES}/{name}/{path}" for path in paths}


def _genomic_benchmarks() -> Suite:
    tasks = tuple(
        Task(
            name, name, "accuracy", dict(zip(_GB_MODELS, figures, strict=False)),
            _list_files(name, classes),
            {"train": train, "test": test}, needs_reference=True,
        )
        for name, (classes, figures, train, test) in _GB.items()
    )  # fmt: skip
    first = dict.fromkeys(_GB_MODELS[:6], f"{CADUCEUS}, table 1")
    return Suite(
        "genomic-benchmarks", "Genomic Benchmarks",
        "https://github.com/ML-Bioinfo-CEITEC/genomic_benchmarks",
        "Gresova et al. 2023, doi:10.1186/s12863-023-01123-8",
        Protocol(
            "official test; 90 % of the official train to learn from and 10 % to choose by", 5,
            "10", "1e-3 or 2e-3 (HyenaDNA 6e-4; CNN 1e-3 at batch 64)", "validation accuracy, early stopping",
        ),
        {**first, "Caduceus MLM 467K": f"{MDLM}, table 7", "ConvNova 386K": f"{JANUS}, table 1",
         "JanusDNA 426K": f"{JANUS}, table 1"},
        tasks,
    )  # fmt: skip


# ----------------------------------------------------------------------------------------------------------------- GUE

_HISTONES = (
    "H3", "H3K14ac", "H3K36me3", "H3K4me1", "H3K4me2", "H3K4me3", "H3K79me3", "H3K9ac", "H4", "H4ac",
)  # fmt: skip
_DNABERT2 = {
    "prom/prom_core_all": .6937, "prom/prom_core_tata": .7417, "tf/0": .7199, "tf/2": .6652, "mouse/2": .7932,
    "mouse/3": .6647,
}  # fmt: skip


def _gue() -> Suite:
    folders = [
        *(f"EMP/{mark}" for mark in _HISTONES),
        *(f"tf/{i}" for i in range(5)),
        *(f"mouse/{i}" for i in range(5)),
        *(f"prom/prom_{size}_{kind}" for size in ("core", "300") for kind in ("all", "notata", "tata")),
        "splice/reconstructed",
        "virus/covid",
    ]
    tasks = tuple(
        Task(
            folder.replace("/", "_"), folder, "f1" if folder == "virus/covid" else "mcc",
            {"DNABERT-2 117M": _DNABERT2[folder]} if folder in _DNABERT2 else {},
        )
        for folder in folders
    )  # fmt: skip
    return Suite(
        "gue", "Genome Understanding Evaluation",
        "https://github.com/MAGICS-LAB/DNABERT_2 (GUE.zip, linked there)",
        DNABERT2,
        Protocol(
            "official train, dev and test", 3, "3 to 10, by task (public scripts)", "3e-5 (public scripts)", "dev MCC"
        ),
        {"DNABERT-2 117M": f"{DNABERT2}, table 6"},
        tasks,
    )  # fmt: skip


# ---------------------------------------------------------------------------------------------- Nucleotide Transformer

_NT_MODELS = ("HyenaDNA 1.6M", "Caduceus-Ph 1.9M", "Caduceus-PS 1.9M", "NT-v2 500M", "JanusDNA mlp 2.0M")
_NT: dict[str, tuple[Metric, tuple[float, ...]]] = {
    "H3": ("mcc", (.779, .815, .799, .784, .835)),
    "H3K14ac": ("mcc", (.612, .631, .541, .551, .729)),
    "H3K36me3": ("mcc", (.613, .601, .609, .625, .702)),
    "H3K4me1": ("mcc", (.512, .523, .488, .550, .615)),
    "H3K4me2": ("mcc", (.455, .487, .388, .319, .589)),
    "H3K4me3": ("mcc", (.549, .544, .440, .410, .688)),
    "H3K79me3": ("mcc", (.672, .697, .676, .626, .747)),
    "H3K9ac": ("mcc", (.581, .622, .604, .562, .673)),
    "H4": ("mcc", (.763, .811, .789, .799, .812)),
    "H4ac": ("mcc", (.564, .621, .525, .495, .698)),
    "enhancers": ("mcc", (.517, .546, .491, .548, .559)),
    "enhancers_types": ("mcc", (.386, .439, .416, .424, .503)),
    "promoter_all": ("f1", (.960, .970, .967, .976, .970)),
    "promoter_no_tata": ("f1", (.959, .969, .968, .976, .971)),
    "promoter_tata": ("f1", (.944, .953, .957, .966, .958)),
    "splice_sites_all": ("accuracy", (.956, .940, .927, .983, .967)),
    "splice_sites_acceptors": ("f1", (.958, .937, .936, .981, .957)),
    "splice_sites_donors": ("f1", (.949, .948, .874, .985, .948)),
}  # fmt: skip
_NT_REVISED = (
    "H2AFZ", "H3K27ac", "H3K27me3", "H3K36me3", "H3K4me1", "H3K4me2", "H3K4me3", "H3K9ac", "H3K9me3", "H4K20me1",
    "enhancers", "enhancers_types", "promoter_all", "promoter_no_tata", "promoter_tata", "splice_sites_acceptors",
    "splice_sites_all", "splice_sites_donors",
)  # fmt: skip
_HUB = "https://huggingface.co/datasets/InstaDeepAI/nucleotide_transformer_downstream_tasks"
_NT_CITATION = "Dalla-Torre et al. 2024, Nucleotide Transformer, doi:10.1038/s41592-024-02523-z"
_NT_PROTOCOL = Protocol(
    "official train and test; a tenth of train to choose by", 10, "20", "1e-3 or 2e-3 (Caduceus)", "validation metric"
)


def _nucleotide_transformer() -> Suite:
    tasks = tuple(
        Task(
            name, name, metric, dict(zip(_NT_MODELS, figures, strict=True)),
            {f"{split}.fna": f"{_HUB}/resolve/main/{name}/{split}.fna" for split in ("train", "test")},
        )
        for name, (metric, figures) in _NT.items()
    )  # fmt: skip
    figures = dict.fromkeys(_NT_MODELS[:4], f"{CADUCEUS}, table 2")
    return Suite(
        "nucleotide-transformer", "Nucleotide Transformer, original tasks", _HUB, _NT_CITATION, _NT_PROTOCOL,
        {**figures, "JanusDNA mlp 2.0M": f"{JANUS}, table 2"}, tasks,
    )  # fmt: skip


def _nucleotide_transformer_revised() -> Suite:
    tasks = tuple(
        Task(
            name, name, "mcc", {},
            {f"{split}.fna": f"{_HUB}_revised/resolve/main/{name}/{split}.fna" for split in ("train", "test")},
        )
        for name in _NT_REVISED
    )  # fmt: skip
    return Suite(
        "nucleotide-transformer-revised", "Nucleotide Transformer, revised tasks", f"{_HUB}_revised", _NT_CITATION,
        _NT_PROTOCOL, {}, tasks,
    )  # fmt: skip


SUITES: dict[str, Suite] = {
    one.name: one
    for one in (_genomic_benchmarks(), _gue(), _nucleotide_transformer(), _nucleotide_transformer_revised())
}
