"""Turns one knob of the easy world: fewer dev questions, other notes, another anchor. Half a minute
for an anchor, the rest at once.

    python -m toy.knobs useless=0.5 --out DIR       or any other of KNOBS, below

    knob      value       what is different                                 written below DIR
    dev       5 ... 160   so many dev questions, drawn by a seed            seedN.json, N = --seed
    keys      0 ... 1     share of right keys in what the writer is taught  anchor, for the writer
    useless   0 ... 1     share of notes about skills that nobody needs     documents.json
    rare      1, 2, 3 ... one note in so many has a triple above 49, the    documents.json
                          others have one below 50
    masters   -           to a solver that knows those, they are trivial    anchor, for the solver
    scales    1, 2, 4 ... factor between weights that follow each other     anchor, for the solver
    lengths   1, 2, 3 ... how often an answer repeats itself, where the     anchor, for the solver
                          question is none that dev asks

All start from toy/anchor and are taught as toy.make teaches. scales changes no output: values and
what comes out of the first layer of the MLP are that much larger, what reads them that much
smaller, so the gradients of the first shrink and those of the second grow. A power of two is exact.
A file world.json tells toy.truth, and nobody who trains, whose notes these are.

Ours, not the paper's. studies.regimes turns them.
"""
import json
import os
import random
from dataclasses import replace

import torch
from transformers import AutoTokenizer, Qwen3ForCausalLM

import warmup
from data import InputError
from engine.arguments import Parser
from engine.outputs import whole, write_whole
from engine.speech import run_script
from toy.make import generator_lesson, solver_lesson
from toy.world import CARELESS, EASY, TARGET, note_set

NOTES = 600
STEPS = 60
RATE = 3e-4


# ---------------------------------------------------------------- questions and notes

def dev(folder, n, seed):
    """n of the 160 dev questions, another sample for every seed."""
    with open(EASY.path("dev.json"), encoding="utf-8") as file:
        everything = json.load(file)
    if not 1 <= n <= len(everything):
        raise InputError(f"dev={n}: expected 1 to {len(everything)} questions")
    some = random.Random(f"dev questions, seed {seed}").sample(everything, int(n))
    write(os.path.join(folder, f"seed{seed}.json"), some)


def useless(folder, share, seed=0):
    """Notes of which a share says nothing that can be asked as dev and test ask."""
    write_notes(folder, replace(EASY, barren=share))


def rare(folder, n, seed=0):
    """Notes whose large numbers are seldom read; dev and test ask about all alike."""
    if n < 1 or n != int(n):
        raise InputError(f"rare={n}: expected a whole number, at least 1")
    regions = {f"often {i}": range(1, 50) for i in range(1, int(n))}
    write_notes(folder, replace(EASY, regions=regions | {"rare": range(50, 100)}))


def write_notes(folder, world):
    if not 0 <= world.barren <= 1:
        raise InputError(f"{world.barren}: expected a share from 0 to 1")
    write(os.path.join(folder, "world.json"), {"world": "easy"})
    # the last: where it is, all is
    write(os.path.join(folder, "documents.json"), note_set(random.Random(2026), NOTES, world))


def write(path, content):
    write_whole(path, json.dumps(content, indent=1))


# ---------------------------------------------------------------- anchors

def keys(folder, right, seed=0):
    """A writer whose demonstrations have this share of right keys, and no other change."""
    world = replace(EASY, careless=CARELESS | {"wrong_key": 1 - right})
    rng = random.Random(3)
    teach(folder, lambda: generator_lesson(rng, True, world))


def masters(folder, value=None, seed=0):
    """A solver that knows what nobody asks, and is as careless as before about the rest."""
    rng = random.Random(4)
    teach(folder, lambda: lesson_of_solver(rng, mastered=("plus", "day", "order")))


def lengths(folder, times, seed=0):
    """A solver whose answers repeat themselves where dev does not ask."""
    rng = random.Random(5)
    teach(folder, lambda: lesson_of_solver(rng, times=int(times)))


def lesson_of_solver(rng, mastered=(), times=1):
    """One (prompt, response), as toy.make's, but for what is mastered and how often an answer is
    said."""
    skill = rng.choice(("largest", "plus", "day", "order"))
    prompt, response = solver_lesson(rng, skill not in mastered, EASY, KIND.get(skill, skill))
    if skill not in TARGET:
        said, box = response.rsplit(" ", 1)
        response = " ".join([said] * times + [box])
    return prompt, response


KIND = {"largest": "triple"}


def scales(folder, factor, seed=0):
    """The same function with weights of unequal size."""
    model, tokenizer = anchor()
    with torch.no_grad():
        for layer in model.model.layers:
            for first, second in ((layer.self_attn.v_proj, layer.self_attn.o_proj),
                                  (layer.mlp.up_proj, layer.mlp.down_proj)):
                first.weight.mul_(factor)
                second.weight.div_(factor)
    save(folder, model, tokenizer)


def teach(folder, lesson):
    """toy/anchor, taught a little further."""
    model, tokenizer = anchor()
    torch.manual_seed(0)

    def stream():
        while True:
            yield [[lesson() for _ in range(32)]]

    warmup.fit(model, tokenizer, stream(), STEPS, lr=RATE, what=os.path.basename(folder))
    save(folder, model, tokenizer)


def anchor():
    path = EASY.path("anchor")
    model = Qwen3ForCausalLM.from_pretrained(path, use_safetensors=True)
    return model, AutoTokenizer.from_pretrained(path)


def save(folder, model, tokenizer):
    with whole(os.path.join(folder, "anchor")) as part:
        model.save_pretrained(part)
        tokenizer.save_pretrained(part)


# ---------------------------------------------------------------- the command

# name: the least value, the largest, whole numbers alone?
RANGES = {"dev": (1, 160, True), "useless": (0, 1, False), "rare": (1, 600, True),
          "keys": (0, 1, False), "scales": (1, 1024, False), "lengths": (1, 64, True)}
KNOBS = {"dev": dev, "useless": useless, "rare": rare, "keys": keys, "masters": masters,
         "scales": scales, "lengths": lengths}


def turn(knob, value, folder, seed=0):
    """Write what the knob at this value needs, unless it is there. -> folder"""
    there = {"dev": f"seed{seed}.json", "useless": "documents.json", "rare": "documents.json"}
    if not os.path.exists(os.path.join(folder, there.get(knob, "anchor"))):
        os.makedirs(folder, exist_ok=True)
        KNOBS[knob](folder, value, seed)
    return folder


def main(argv=None):
    parser = Parser("python -m toy.knobs", __doc__)
    parser.add_argument("knob", help=f"NAME=VALUE; NAME is one of {', '.join(KNOBS)}")
    parser.add_argument("--out", required=True, help="folder to write")
    parser.add_argument("--seed", type=int, default=0, help="of the sample of dev questions")
    args = parser.parse_args(argv)
    name, _, value = args.knob.partition("=")
    if name not in KNOBS:
        raise InputError(f"{args.knob}: expected NAME=VALUE, NAME one of {', '.join(KNOBS)}")
    try:
        value = float(value) if value else None
    except ValueError:
        raise InputError(f"{args.knob}: {value!r} is no number, as expected of {name}") from None
    if value is None and name != "masters":
        raise InputError(f"{args.knob}: expected a value, as in {name}=1")
    if name in RANGES:
        least, most, whole_ones = RANGES[name]
        if not least <= value <= most or whole_ones and value != int(value):
            kind = "a whole number" if whole_ones else "a number"
            raise InputError(f"{args.knob}: expected {kind} from {least} to {most}")
    if os.path.exists(args.out) and os.listdir(args.out):
        raise InputError(f"--out {args.out}: is not empty, and may be of another value; expected a "
                         "new folder")
    print(turn(name, value, args.out, args.seed))


if __name__ == "__main__":
    run_script(main)
