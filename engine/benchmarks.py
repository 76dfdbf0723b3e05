"""The authors' fourteen benchmarks: how each is asked, and what they published.

    name --BENCHMARKS--> samples, token limit, category, kind, file
    name --PUBLISHED---> percent right of base, fixed generator and INFUSER, for three anchors

    kind      answers are
    choice    letters
    free      a text in a box
    code      programs, which never run here: engine/coding.py names the tool that runs them

Source: the authors' repository (FFishy-git/INFUSER) and their blog; sizes from the benchmarks' own
pages. They agree with what was published of the smallest base model: each number is, to two
decimals, a multiple of 1 / (questions x samples) (tests/test_evaluate.py). HMMT's is not known to
us: no multiple of 30 questions gives its number.

The authors have both parts of OlympiadBench in one file, told apart by its field `domain`.
"""
from collections import Counter
from dataclasses import dataclass

from data import InputError

GENERAL, MATH, MEDICAL, CODING = CATEGORIES = (
    "general reasoning", "math & physics", "medical", "coding")
# The authors call these two aligned with their documents and dev set.
IN_DOMAIN = (GENERAL, MATH)
LONGEST, LONGEST_CODE = 8192, 16384


@dataclass(frozen=True)
class Benchmark:
    title: str              # as the authors' tables have it
    samples: int            # N, the authors'
    category: str
    kind: str               # choice, free or code
    file: str               # of HUB + "benchmarks/"; "" for code
    size: int | None        # questions
    source: str             # where else it comes from; on the hub unless it says otherwise
    domain: str = ""        # which part of a file that holds two
    shuffled: bool = False  # its options are shuffled by the seed

    @property
    def max_tokens(self):
        return LONGEST_CODE if self.kind == "code" else LONGEST

    @property
    def group(self):
        return "in domain" if self.category in IN_DOMAIN else "out of domain"


BENCHMARKS = {
    "mmlu-pro": Benchmark(
        "MMLU-Pro", 1, GENERAL, "choice", "mmlu_pro.json", 12032, "TIGER-Lab/MMLU-Pro, test"),
    "gpqa-diamond": Benchmark(
        "GPQA-Diamond", 5, GENERAL, "choice", "gpqa_diamond.json", 198,
        "Idavidrein/gpqa, gpqa_diamond.csv", shuffled=True),
    "supergpqa": Benchmark(
        "SuperGPQA", 1, GENERAL, "choice", "supergpqa.json", 26529, "m-a-p/SuperGPQA"),
    "bbeh": Benchmark(
        "BBEH", 1, GENERAL, "free", "bbeh.json", 4520, "google-deepmind/bbeh on GitHub, converted"),
    "math500": Benchmark(
        "MATH500", 4, MATH, "free", "math500.json", 500, "HuggingFaceH4/MATH-500, test"),
    "aime2024": Benchmark(
        "AIME2024", 32, MATH, "free", "aime2024.json", 30, "HuggingFaceH4/aime_2024"),
    "aime2025": Benchmark(
        "AIME2025", 32, MATH, "free", "aime2025.json", 30, "opencompass/AIME2025"),
    "hmmt": Benchmark(
        "HMMT", 32, MATH, "free", "hmmt.json", None, "MathArena/hmmt_feb_2025"),
    "olympiadbench-math": Benchmark(
        "OlympiadBench Math", 1, MATH, "free", "olympiadbench.json", 674,
        "Hothan/OlympiadBench, OE_TO_maths_en_COMP", "math"),
    "olympiadbench-phys": Benchmark(
        "OlympiadBench Phys", 1, MATH, "free", "olympiadbench.json", 236,
        "Hothan/OlympiadBench, OE_TO_physics_en_COMP", "phys"),
    "medqa": Benchmark(
        "MedQA", 1, MEDICAL, "choice", "medqa.json", 1273,
        "GBaker/MedQA-USMLE-4-options, test"),
    "medxpertqa": Benchmark(
        "MedXpertQA", 1, MEDICAL, "choice", "medxpertqa.json", 2450,
        "TsinghuaC3I/MedXpertQA, Text, test"),
    "humaneval-plus": Benchmark(
        "HumanEval+", 8, CODING, "code", "", 164, "evalplus/humanevalplus"),
    "livecodebench": Benchmark(
        "LiveCodeBench v1-5", 2, CODING, "code", "", 880,
        "livecodebench/code_generation_lite, release_v5"),
}
# Entries in the mean of a category.
IN_MEAN = Counter(x.category for x in BENCHMARKS.values())
SIZES = {category: IN_MEAN[category] for category in CATEGORIES}

ANCHORS = ("Qwen3-4B-Base", "Qwen3-8B-Base", "OLMo-3-7B-Instruct-SFT")
METHODS = ("base", "fixed generator", "INFUSER")
# Percent: base, fixed generator, INFUSER, for each of ANCHORS.
PUBLISHED = {
    "mmlu-pro": ((52.98, 59.46, 60.20), (59.91, 65.48, 66.20), (49.0, 51.5, 54.1)),
    "gpqa-diamond": ((31.41, 38.59, 36.80), (36.87, 45.56, 45.48), (31.6, 36.2, 35.6)),
    "supergpqa": ((25.88, 33.00, 33.48), (30.62, 37.87, 37.77), (22.8, 26.7, 28.4)),
    "bbeh": ((7.57, 11.33, 11.22), (10.30, 12.79, 13.04), (8.1, 10.4, 10.2)),
    "math500": ((61.20, 76.25, 76.65), (76.05, 78.70, 82.77), (68.9, 68.4, 70.6)),
    "aime2024": ((10.42, 10.62, 11.35), (12.92, 15.31, 18.58), (5.8, 6.3, 6.8)),
    "aime2025": ((8.44, 8.85, 10.73), (11.87, 14.06, 15.87), (7.1, 6.8, 9.8)),
    "hmmt": ((2.49, 2.86, 2.94), (2.96, 3.93, 7.04), (3.2, 4.5, 4.8)),
    "olympiadbench-math": ((35.31, 42.43, 42.38), (40.36, 44.96, 50.24), (32.20, 34.27, 34.57)),
    "olympiadbench-phys": ((10.17, 12.71, 10.31), (12.29, 14.83, 14.41), (6.36, 6.36, 6.36)),
    "medqa": ((55.46, 58.37, 58.86), (64.18, 65.04, 65.78), (45.1, 43.1, 45.3)),
    "medxpertqa": ((13.02, 13.88, 13.78), (14.49, 15.22, 15.25), (12.7, 13.4, 14.2)),
    "humaneval-plus": ((70.27, 74.54, 74.90), (75.94, 77.52, 78.57), (67.2, 68.0, 66.6)),
    "livecodebench": ((20.68, 22.05, 22.35), (25.23, 27.73, 28.01), (12.8, 10.6, 13.3)),
}
BOTH = "olympiadbench"


def short_name(text):
    """A name as typed -> the short name, or None.

    >>> short_name("MMLU_Pro"), short_name("toy/test.json")
    ('mmlu-pro', None)
    """
    name = text.lower().replace("_", "-")
    return name if name in BENCHMARKS else None


def named(words):
    """Words of --benchmarks, NAME or NAME=FILE, -> [(short name, FILE or None)].

    `all` is all fourteen, `olympiadbench` its two. Raises InputError.

    >>> named(["olympiadbench=o.json", "hmmt"])
    [('olympiadbench-math', 'o.json'), ('olympiadbench-phys', 'o.json'), ('hmmt', None)]
    """
    found = []
    for word in words:
        text, _, file = word.partition("=")
        parts = [short_name(text)]
        if text == "all":
            parts = list(BENCHMARKS)
        elif text.lower() == BOTH:
            parts = [f"{BOTH}-math", f"{BOTH}-phys"]
        if parts == [None] or (text == "all" and file):
            raise InputError(f"--benchmarks {word}: expected NAME or NAME=FILE, with a NAME of "
                             f"{', '.join(BENCHMARKS)}; or all")
        found += [(name, file or None) for name in parts]
    return found


# ---------------------------------------------------------------- the published numbers

def published_means(anchor, method):
    """Numbers of ANCHORS and METHODS -> {category: its mean, "mean of four categories"}, percent.

    >>> round(published_means(1, 2)["mean of four categories"], 2)
    41.48
    """
    means = {}
    for category, size in SIZES.items():
        names = [name for name, x in BENCHMARKS.items() if x.category == category]
        means[category] = sum(PUBLISHED[name][anchor][method] for name in names) / size
    return means | {"mean of four categories": sum(means.values()) / len(means)}
