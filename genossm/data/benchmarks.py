"""The published benchmarks: where each task comes from, how it is judged, and what has been reported on it.

Published figures are fractions, as their papers print them. What no source at hand states is "not stated". The checksum
of a folder is that of :func:`genossm.data.readers.checksum`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from genossm.errors import GenoSSMError

Metric = Literal["accuracy", "mcc", "f1", "f1_binary"]
NOT_STATED = "not stated"

CADUCEUS = "Schiff et al. 2024, Caduceus, arXiv:2403.03234"
JANUS = "Duan et al. 2025, JanusDNA, arXiv:2505.17257"
MDLM = "Sahoo et al. 2024, MDLM, arXiv:2406.07524"
HYENA = "Nguyen et al. 2023, HyenaDNA, arXiv:2306.15794"
DNABERT2 = "Zhou et al. 2023, DNABERT-2, arXiv:2306.15006"


@dataclass(frozen=True)
class Protocol:
    """How the published figures were reached; a run that does otherwise is not comparable.

    Attributes:
        splits: in words.
        seeds: repetitions whose mean is reported; None: not stated.
        epochs, learning_rates, batch_sizes: of the published models.
        choose: what is chosen on, in words.
        reading: from hidden states to classes, in words.
    """

    splits: str = NOT_STATED
    seeds: int | None = None
    epochs: str = NOT_STATED
    learning_rates: str = NOT_STATED
    batch_sizes: str = NOT_STATED
    choose: str = NOT_STATED
    reading: str = NOT_STATED


@dataclass(frozen=True)
class Task:
    """One task: its folder in a mirror, its metric, published figures by model, and what tells the official files."""

    name: str
    folder: str
    metric: Metric
    published: Mapping[str, float] = field(default_factory=dict)
    spread: Mapping[str, float] = field(default_factory=dict)
    """the largest distance of a seed from the published mean, where it is printed."""
    elsewhere: Mapping[str, float] = field(default_factory=dict)
    """figures that were published under another protocol."""
    rows: tuple[int, int | None] | None = None
    """to learn from (train, and dev where there is one), and of the test; None: not stated."""
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
    averages: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """published means over a group of tasks, by model."""

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
_GB_SPREAD = {
    "dummy_mouse_enhancers_ensembl": dict(zip(_GB_MODELS, (.087, .025, .054, .058, .074, .058, .016), strict=False)),
    "human_enhancers_ensembl": {"CNN 264K": .122},
    "human_ensembl_regulatory": {"Mamba 468K": .211},
}  # fmt: skip
_GB_ROWS = {
    "dummy_mouse_enhancers_ensembl": (968, 242), "demo_coding_vs_intergenomic_seqs": (75_000, 25_000),
    "demo_human_or_worm": (75_000, 25_000), "human_enhancers_cohn": (20_843, 6_948),
    "human_enhancers_ensembl": (123_872, 30_970), "human_ensembl_regulatory": (231_348, 57_713),
    "human_ocr_ensembl": (139_804, 34_952), "human_nontata_promoters": (27_097, 9_034),
    "drosophila_enhancers_stark": (5_184, 1_730),
}  # fmt: skip
"""Of the official lists at the commit of _GB_FILES."""
_GB_HYENA = ("HyenaDNA", "HyenaDNA from scratch", "CNN of the HyenaDNA paper")
_GB_ELSEWHERE = {
    "dummy_mouse_enhancers_ensembl": (.851, .847, .690), "demo_coding_vs_intergenomic_seqs": (.913, .909, .876),
    "demo_human_or_worm": (.966, .964, .930), "human_enhancers_cohn": (.742, .729, .695),
    "human_enhancers_ensembl": (.892, .857, .689), "human_ensembl_regulatory": (.938, .904, .933),
    "human_ocr_ensembl": (.809, .788, .680), "human_nontata_promoters": (.966, .933, .846),
}  # fmt: skip
"""The HyenaDNA paper's own figures: 100 epochs, chosen, as it seems, by the test split."""
_GB_FILES = "https://raw.githubusercontent.com/ML-Bioinfo-CEITEC/genomic_benchmarks/605d8539/datasets"


def _list_files(name: str, classes: tuple[str, ...]) -> dict[str, str]:
    paths = [f"{split}/{label}.csv.gz" for split in ("train", "test") for label in classes]
    return {path: f"{_GB_FILES}/{name}/{path}" for path in paths}


def _genomic_benchmarks() -> Suite:
    tasks = tuple(
        Task(
            name, name, "accuracy", dict(zip(_GB_MODELS, figures, strict=False)), _GB_SPREAD.get(name, {}),
            dict(zip(_GB_HYENA, _GB_ELSEWHERE.get(name, ()), strict=False)), _GB_ROWS[name],
            _list_files(name, classes), {"train": train, "test": test}, needs_reference=True,
        )
        for name, (classes, figures, train, test) in _GB.items()
    )  # fmt: skip
    first = dict.fromkeys(_GB_MODELS[:6], f"{CADUCEUS}, table 1")
    return Suite(
        "genomic-benchmarks", "Genomic Benchmarks",
        "https://github.com/ML-Bioinfo-CEITEC/genomic_benchmarks",
        "Gresova et al. 2023, doi:10.1186/s12863-023-01123-8",
        Protocol(
            "official test; 90 % of the official train to learn from and 10 % to choose by", 5, "10",
            "1e-3 or 2e-3 (HyenaDNA 6e-4, CNN 1e-3), AdamW", "256 (CNN 64)", "validation accuracy, early stopping",
            "mean pooling and a linear layer; Ph: the mean of both strands at test, PS: always",
        ),
        {**first, "Caduceus MLM 467K": f"{MDLM}, table 7", "ConvNova 386K": f"{JANUS}, table 1",
         "JanusDNA 426K": f"{JANUS}, table 1",
         **dict.fromkeys(_GB_HYENA, f"{HYENA}: 100 epochs, not comparable")},
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
_GUE_ROWS = {
    "prom/prom_core_all": (47_356 + 5_920, 5_920), "prom/prom_core_tata": (4_904 + 613, 613),
    "tf/0": (32_378 + 1_000, 1_000), "tf/2": (19_000 + 1_000, 1_000), "mouse/2": (2_620 + 328, 328),
    "mouse/3": (1_904 + 239, 239),
}  # fmt: skip
_GUE_AVERAGES = {
    "epigenetic (10)": (.5598, .5894, .5839), "TF human": (.7011, .6174), "TF mouse": (.6799, .6437),
    "core promoter": (.7053, .6922), "promoter": (.8421, .8014), "splice": (.8499, .7776), "covid": (.7102, .2588),
}  # fmt: skip
_GUE_MODELS = ("DNABERT-2 117M", "HyenaDNA", "Caduceus-PS")


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
            {"DNABERT-2 117M": _DNABERT2[folder]} if folder in _DNABERT2 else {}, rows=_GUE_ROWS.get(folder),
        )
        for folder in folders
    )  # fmt: skip
    return Suite(
        "gue", "Genome Understanding Evaluation",
        "https://drive.google.com/file/d/1uOrwlf07qGQuruXqGXWMpPn8avBoW7T-/view (linked from "
        "https://github.com/MAGICS-LAB/DNABERT_2)",
        DNABERT2,
        Protocol(
            "official train, dev and test", 1,
            "3 (EMP, tf), 4 (promoters; TATA 10), 5 (splice; mouse, 1,000 steps at most), 8 (covid)", "3e-5",
            "8 (covid 32)", "dev loss (all of this: the public scripts, whose one seed is 42)",
        ),
        {
            "DNABERT-2 117M": f"{DNABERT2}, table 6 (from secondary copies)",
            "averages": "MergeDNA, table 3, which has no figure of Caduceus-PS but the first",
        },
        tasks,
        {group: dict(zip(_GUE_MODELS, of, strict=False)) for group, of in _GUE_AVERAGES.items()},
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
    "promoter_all": ("f1_binary", (.960, .970, .967, .976, .970)),
    "promoter_no_tata": ("f1_binary", (.959, .969, .968, .976, .971)),
    "promoter_tata": ("f1_binary", (.944, .953, .957, .966, .958)),
    "splice_sites_all": ("accuracy", (.956, .940, .927, .983, .967)),
    "splice_sites_acceptors": ("f1_binary", (.958, .937, .936, .981, .957)),
    "splice_sites_donors": ("f1_binary", (.949, .948, .874, .985, .948)),
}  # fmt: skip
_NT_TRAIN = {
    "H3": 13_468, "H3K14ac": 29_743, "H3K36me3": 31_392, "H3K4me1": 28_509, "H3K4me2": 27_614, "H3K4me3": 33_119,
    "H3K79me3": 25_953, "H3K9ac": 25_003, "H4": 13_140, "H4ac": 30_685, "enhancers": 14_968, "enhancers_types": 14_968,
    "promoter_all": 53_276, "promoter_no_tata": 47_767, "promoter_tata": 5_517, "splice_sites_all": 27_000,
    "splice_sites_acceptors": 19_961, "splice_sites_donors": 19_775,
}  # fmt: skip
"""Rows of train and the metric (F1 of the second class): kuleshov-group/caduceus@0060a6d, configs/dataset."""
_NT_REVISED = (
    "H2AFZ", "H3K27ac", "H3K27me3", "H3K36me3", "H3K4me1", "H3K4me2", "H3K4me3", "H3K9ac", "H3K9me3", "H4K20me1",
    "enhancers", "enhancers_types", "promoter_all", "promoter_no_tata", "promoter_tata", "splice_sites_acceptors",
    "splice_sites_all", "splice_sites_donors",
)  # fmt: skip
_HUB = "https://huggingface.co/datasets/InstaDeepAI/nucleotide_transformer_downstream_tasks"
_NT_CITATION = "Dalla-Torre et al. 2024, Nucleotide Transformer, doi:10.1038/s41592-024-02523-z"
_NT_PROTOCOL = Protocol(
    "official train and test; a tenth of train, by the seed, to choose by (Caduceus)", 10, "20",
    "1e-3 or 2e-3, AdamW (Caduceus)", "128 or 512 (Caduceus)", "the task's metric on that tenth (Caduceus)",
    "pooling and a linear layer (Caduceus)",
)  # fmt: skip


def _nucleotide_transformer() -> Suite:
    tasks = tuple(
        Task(
            name, name, metric, dict(zip(_NT_MODELS, figures, strict=True)),
            {"Caduceus-PS 1.9M": .289} if name == "splice_sites_donors" else {}, rows=(_NT_TRAIN[name], None),
            files={f"{split}.fna": f"{_HUB}/resolve/main/{name}/{split}.fna" for split in ("train", "test")},
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
            name, name, "mcc",
            files={f"{split}.fna": f"{_HUB}_revised/resolve/main/{name}/{split}.fna" for split in ("train", "test")},
        )
        for name in _NT_REVISED
    )  # fmt: skip
    return Suite(
        "nucleotide-transformer-revised", "Nucleotide Transformer, revised tasks", f"{_HUB}_revised", _NT_CITATION,
        Protocol(), {}, tasks,
    )  # fmt: skip


SUITES: dict[str, Suite] = {
    one.name: one
    for one in (_genomic_benchmarks(), _gue(), _nucleotide_transformer(), _nucleotide_transformer_revised())
}
