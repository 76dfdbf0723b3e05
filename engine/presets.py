"""The recipes: values that a run starts from, each by name, and the short names of models.

    toy, toy-hard, toy-free    the embedded worlds
    reading                    SmolLM2-135M on real passages, asked with the book open
    small                      a model of your own of 100M to 1B parameters
    paper-4b, paper-8b         the paper's

A flag wins over its preset (engine/flags.py). To add one: a dict below, its line in PRESETS, and
its name in config.CHOICES.
"""
from config import ROOT

# The authors' released data.
HUB = "hf://datasets/Siyuc/infuser_train/"

# What differs from config.py's defaults, which are the toy world's.

def world(folder, anchor):
    path = ROOT / folder
    return dict(
        model=str(ROOT / anchor), documents=str(path / "documents.json"),
        dev=str(path / "dev.json"), test=str(path / "test.json"), truth="toy.truth")


TOY = world("toy", "toy/anchor")
# the harder world
TOY_HARD = world("toy/hard", "toy/hard/anchor")
# the toy world, with an anchor that also knows free-form questions and seed prompts
TOY_FREE = world("toy", "toy/free/anchor")

# A model of 100M to 1B parameters on one machine, with data of your own; not tuned.
SMALL = dict(
    max_chunk_tokens=512, iterations=20, docs_per_step=4, questions_per_doc=4,
    answers_per_question=4, minibatch_rows=16, solver_lr=1e-5, generator_lr=1e-5,
    max_prompt_tokens=1024, max_response_tokens=384, tokens_at_once=4096,
    show_every=1)

# SmolLM2-135M on real passages (studies/reading.py, docs/results/reading.md), from the folder where
# its files were made; not tuned.
READING = SMALL | dict(
    documents="reading/documents.jsonl", dev="reading/dev.jsonl", test="reading/test.jsonl",
    open_book=True, iterations=40, docs_per_step=3, answers_per_question=8, max_chunk_tokens=256,
    max_prompt_tokens=512, max_response_tokens=160, eval_every=20)

PAPER_4B = dict(
    model="Qwen/Qwen3-4B-Base", documents=HUB + "documents.json",
    dev=HUB + "curriculum_pool/supergpqa_science_800.json",
    valid=HUB + "benchmarks/combine_2000.json",
    max_chunk_tokens=3072, iterations=100, seed=42, docs_per_step=128, minibatch_rows=256,
    solver_lr=2e-6, generator_lr=6e-6, prompts="hard", max_prompt_tokens=4096,
    max_response_tokens=8192, valid_every=5, save_every=5,
    # these lines are ours, and untried on a GPU
    eval_every=10, checkpoint_every=5, tokens_at_once=32768, logp_chunk=4096,
    grad_checkpoint=True)

PAPER_8B = PAPER_4B | dict(model="Qwen/Qwen3-8B-Base", generator_lr=4e-6)

PRESETS = {
    "toy": TOY, "toy-hard": TOY_HARD, "toy-free": TOY_FREE,
    "small": SMALL, "reading": READING, "paper-4b": PAPER_4B, "paper-8b": PAPER_8B}

# name: hub id, preset. For 14B and 32B the recipe is that of 8B, for planning: its learning rates
# were not tried at these sizes. Of 32B no base model was published.
SHORT_NAMES = {
    "Qwen3-4B-Base": ("Qwen/Qwen3-4B-Base", "paper-4b"),
    "Qwen3-8B-Base": ("Qwen/Qwen3-8B-Base", "paper-8b"),
    "Qwen3-14B-Base": ("Qwen/Qwen3-14B-Base", "paper-8b"),
    "Qwen3-32B": ("Qwen/Qwen3-32B", "paper-8b"),
    "OLMo-3-7B-Instruct-SFT": ("allenai/Olmo-3-7B-Instruct-SFT", "paper-8b"),
}
