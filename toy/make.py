"""Makes an embedded world: its files, its tokenizer, its lessons, and the small anchor they teach.

    python -m toy.make                              # toy: the files, and toy/anchor from nothing
    python -m toy.make --world hard --reuse_clean   # toy/hard, on the toy/anchor-clean it left
    python -m toy.make --world free --reuse_clean   # toy/free: an anchor for extensions.py too
    python -m toy.make --respell                    # a word of a prompt was changed: no training

The first takes 28 minutes on one core. The anchor is a Qwen3 of 1.1 million parameters:

    stage      steps              lessons
    letters    1,300              letter_lesson alone
    clean      1,500              generator_lesson, solver_lesson, letter_lesson, all right
    careless   200, 300 or 400    the same but letters, with the faults of World.careless

The clean stage teaches it to write, to solve and to bind answers to letters; the careless one
makes it unreliable. docs/worlds.md says how, and what came of it.

The tokenizer reads each fixed line of a prompt as one sign. A changed line is unknown to it until
--respell gives it the sign of the line it replaces; the model behaves as before, whatever the new
words say. To see what a wording does, use a pretrained model.

Ours, not the paper's: its anchors are pretrained models.
"""
import json
import os
import random
import re

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

import generator
import solver
import warmup
from data import Document, InputError, Question
from engine.arguments import Parser
from engine.pools import as_document
from engine.speech import run_script
from toy.world import (CARELESS, DAYS, EASY, NAMES, OPENINGS, PLACES, RIDES, SKILLS, TARGET, THINGS,
                       VERBS, WORLDS, ask, draw_claim, draw_fact, draw_facts, note, write_world)

# The clean stage also teaches smallest, so that the word largest has to be read.
TAUGHT = SKILLS | {"triple": ["largest", "smallest"]}
LETTERS = "ABCDEFGH"


# ---------------------------------------------------------------- the tokenizer

SPECIAL = ["<pad>", "<unk>", "<|user|>", "<|assistant|>", "<|end|>"]
JSON_MARKS = ['{"question_text": "', '", "choices": ["', '", "', '"], "ground_truth": "', '"}']
FREE_MARKS = ['", "ground_truth": "', "\\boxed{", "}"]
PHRASES = [
    "The answer is", "What is the largest smallest of plus and", "Which day comes days after",
    "came first, then second last. Who came", "Which letters are they",
    "There were and then more came.",
    "The three boxes held opens on and closes days later. "
    "left with people and more got on later."]

# An entry that the shipped anchors have and no text uses.
LEFTOVER = ["{question}"]

# The shipped anchors were taught with their prompts' lines in alphabetical order. These are the
# places those lines have in the prompts, so that a line keeps its id when its words change.
LINE_ORDER = (1, 0, 2, 4, 3)
FREE_LINE_ORDER = (4, 0, 3, 1, 5, 6, 2)

TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}")


def make_tokenizer(free=False):
    """A word-level tokenizer: one token for every word, number and mark of the world.

    And one for every fixed line of the prompts. They reach this model word for word, as they reach
    Qwen3; only the cutting differs. A line that never changes carries one token's worth of
    information, so here it costs one. The free world's tokenizer has more, after all others.
    """
    letters = [f"{c}." for c in LETTERS] + [f"\\boxed{{{c}}}" for c in LETTERS]
    signs = prompt_lines() + LEFTOVER + JSON_MARKS + letters
    more = free_lines() + FREE_MARKS if free else []
    vocab = {token: i for i, token in enumerate(SPECIAL + signs + world_words() + more)}

    inner = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    # joins with spaces, none before , . ?
    inner.decoder = decoders.WordPiece(prefix="##", cleanup=True)
    inner.add_tokens([AddedToken(token, normalized=False) for token in signs + more])

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token="<unk>", pad_token="<pad>", eos_token="<|end|>",
        additional_special_tokens=["<|user|>", "<|assistant|>"])
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def world_words():
    """Every word and mark of notes and questions, and the numbers below 100."""
    listed = OPENINGS + NAMES + DAYS + THINGS + VERBS + PLACES + RIDES + PHRASES
    text = " ".join(listed).replace("{p}", " ")
    words = set(re.findall(r"\w+|[^\w\s]", text)) | {"?", ",", "."}
    return sorted(words) + [str(i) for i in range(100)]


def prompt_lines():
    """The fixed lines of the two prompts that every anchor knows, in the order of their ids."""
    written = generator.PROMPT.format(document="\n")
    answered = solver.MULTIPLE_CHOICE.format(question="\n", options="\n")
    return in_order(lines_of(written, answered), LINE_ORDER)


def free_lines():
    """Those that only the free world's anchor knows, in the order of their ids."""
    known = prompt_lines()
    lines = [line for line in lines_of(*free_prompts()) if line not in known]
    return in_order(lines, FREE_LINE_ORDER)


def free_prompts():
    """The prompts that only the free world's anchor knows, without what goes into them."""
    shown = Document("", "\n\n")
    # some seed question, whichever: it is told by there being one
    seeded = Document("", "\n\n", seeds=frozenset({""}))
    return [
        generator.prompt_text(shown, "free_form"),
        generator.prompt_text(seeded),
        solver.prompt_text(Question("\n\n", [], ""))]


def lines_of(*texts):
    """Texts -> their lines that are not blank, each once."""
    lines = "\n".join(texts).split("\n")
    return list(dict.fromkeys(line for line in lines if line.strip()))


def in_order(lines, order):
    """Lines as the prompts have them -> as the shipped anchors do, if they are as many."""
    return [lines[place] for place in order] if len(lines) == len(order) else lines


def respell(folder):
    """Give every changed line of the prompts the id of the line it replaces -> the changed lines.

    Rewrites the folder's tokenizer.json, or leaves it alone where no line changed. InputError if
    more than the words of a line differs from what the folder's model was taught.
    """
    path = os.path.join(folder, "tokenizer.json")
    if not os.path.exists(path):
        raise InputError("no tokenizer.json; expected the folder of a model")

    old = Tokenizer.from_file(path).get_vocab()
    free = FREE_MARKS[1] in old
    tokenizer = make_tokenizer(free)
    new = tokenizer.get_vocab()

    lines = prompt_lines() + (free_lines() if free else [])
    changed = [token for token in new if token not in old]
    moved = [token for token in new if token in old and new[token] != old[token]]
    if len(new) != len(old) or moved or not set(changed) <= set(lines):
        raise InputError(
            "only words in a line of a prompt can change, and the number or order of the lines "
            "did, or the world's own words: the anchor must be rebuilt with `python -m toy.make`, "
            "28 minutes on one core")

    for line in changed:
        hosts = [word for word in world_words() if line in word]
        if hosts:
            raise InputError(
                f"the prompt line {line!r} is part of the notes' word {hosts[0]!r}: too short to "
                "be one sign")
    if changed:
        tokenizer.backend_tokenizer.save(path)
    return changed


# ---------------------------------------------------------------- lessons

def slip(rng, fact, skill, choices, right, opposite, neighbour=0.0):
    """A wrong choice.

    For largest or smallest often the opposite one, for plus the neighbour: a misconception, not
    noise. opposite, neighbour: how often.
    """
    kind, values = fact
    if kind == "triple" and rng.random() < opposite:
        return str(min(values) if skill == "largest" else max(values))
    if kind == "plus" and neighbour and rng.random() < neighbour:
        return next(x for x in choices if abs(int(x) - int(right)) == 1)
    return rng.choice([x for x in choices if x != right])


def generator_lesson(rng, careless, world=EASY):
    """One (prompt, response): a note and the JSON about it; with the world's faults if careless."""
    facts = draw_facts(rng, world)
    faults = world.careless
    fact = rng.choice(facts)
    claim = draw_claim(rng, facts, world)
    skill = rng.choice((SKILLS if careless else TAUGHT)[fact[0]])
    text, choices, key = ask(rng, fact, skill, world)

    if careless and skill == "largest" and claim and rng.random() < faults["trust"]:
        key = str(claim)
    elif careless and rng.random() < faults["wrong_key"]:
        key = slip(rng, fact, skill, choices, key, faults["opposite_key"], faults["neighbour"])

    if careless and rng.random() < faults["broken"]:
        # a doubled choice, or the key gone
        choices = choices[:]
        choices[rng.randrange(4)] = rng.choice(choices)

    return warmup.generator_pair({
        "content": note(rng, facts, claim), "question_text": text,
        "choices": choices, "ground_truth": key})


def solver_lesson(rng, careless, world=EASY, kind=None):
    """One (prompt, response): a question with choices and the answer with its box.

    kind: of the fact it is about; None: any.
    """
    kind = kind or rng.choice(list(SKILLS))
    faults = world.careless
    fact = draw_fact(rng, kind, world=world)
    skill = rng.choice((SKILLS if careless else TAUGHT)[kind])
    text, choices, answer = ask(rng, fact, skill, world)

    if careless and rng.random() < faults["wrong_answer"]:
        opposite = faults["opposite_answer"]
        answer = slip(rng, fact, skill, choices, answer, opposite, faults["neighbour"])

    rng.shuffle(choices)
    letter = None
    if careless and rng.random() < faults["wrong_letter"]:
        letter = rng.choice(LETTERS[:4])
    demo = {"question_text": text, "choices": choices, "ground_truth": answer}
    return warmup.solver_pair(demo, letter)


def free_answer_lesson(rng):
    """One (prompt, response): a question without choices and a careless answer."""
    fact = draw_fact(rng, rng.choice(["triple", "day", "order"]))
    skill = SKILLS[fact[0]][0]
    text, choices, right = ask(rng, fact, skill)

    answer = right
    if rng.random() < CARELESS["wrong_answer"]:
        answer = slip(rng, fact, skill, choices, right, CARELESS["opposite_answer"])
    response = f"The answer is {answer} \\boxed{{{answer}}}"
    return solver.prompt_text(Question(text, [], right)), response


def free_writer_lesson(rng):
    """One (prompt, response): a note and the JSON of a question without choices.

    Its key is often wrong, sometimes empty.
    """
    facts = draw_facts(rng)
    fact = rng.choice([fact for fact in facts if fact[0] != "plus"])
    skill = SKILLS[fact[0]][0]
    text, choices, key = ask(rng, fact, skill)

    if rng.random() < CARELESS["wrong_key"]:
        key = slip(rng, fact, skill, choices, key, CARELESS["opposite_key"])
    if rng.random() < CARELESS["broken"]:
        key = ""

    prompt = generator.prompt_text(Document("", note(rng, facts)), "free_form")
    return prompt, json.dumps({"question_text": text, "ground_truth": key})


def seeded_lesson(rng):
    """One (prompt, response): three questions of the target skill and the JSON of a fourth.

    Sometimes it is a copy of the first.
    """
    rows = []
    for _ in range(4):
        text, choices, right = ask(rng, draw_fact(rng, "triple"), TARGET[0])
        rows.append({"question_text": text, "choices": choices, "ground_truth": right})
    new = rows[3]
    shown = [Question(**row) for row in rows[:3]]
    # the order they are shown in
    order = random.Random(f"{rng.random()} seeds 0").sample(shown, 3)
    document = as_document(order, frozenset(question.question_text for question in shown))

    if rng.random() < CARELESS["wrong_key"]:
        fact = "triple", [int(x) for x in new["choices"][:3]]
        right, opposite = new["ground_truth"], CARELESS["opposite_key"]
        new["ground_truth"] = slip(rng, fact, TARGET[0], new["choices"], right, opposite)

    written = rows[0] if rng.random() < CARELESS["broken"] else new
    return generator.prompt_text(document), json.dumps(written)


def letter_lesson(rng):
    """A look-up exercise: a dozen choices with their letters, in any order and with repetition.

    So counting off does not help. Binding a value to its letter is the last thing a small model
    learns. Half of the exercises name the letter first: that direction is plain induction, appears
    within 16,000 sequences, and the other one follows it. Without it the other one was still at
    chance after 35,000 exercises (LOG.md).
    """
    numbers = [str(i) for i in range(1, 100)]
    choices = rng.sample(rng.choice([numbers] * 3 + [NAMES, DAYS]), 4)
    letter_first = rng.random() < 0.5

    response = []
    for _ in range(12):
        i = rng.randrange(4)
        pair = [f"\\boxed{{{LETTERS[i]}}}", choices[i]]
        first, second = pair if letter_first else pair[::-1]
        # the first of a pair cannot be known, the second can
        response += [(first, False), (second, True)]
    return solver.prompt_text(Question("Which letters are they?", choices, "")), response


def lessons(rng, careless, world=EASY):
    """An endless stream of lists of lists of pairs: a step, and in it micro-batches.

    Writing stands apart from solving, since their lengths differ.
    """
    n_letters = 0 if careless else 6
    while True:
        free = free_lessons(rng) if world.free else []
        writing = [generator_lesson(rng, careless, world) for _ in range(24)]
        solving = [solver_lesson(rng, careless, world) for _ in range(32)]
        letters = [letter_lesson(rng) for _ in range(n_letters)]
        yield [writing, solving, letters] + free


def free_lessons(rng):
    """What a step of the free world's careless stage has beside the easy one's."""
    answering = [free_answer_lesson(rng) for _ in range(32)]
    writing = [free_writer_lesson(rng) for _ in range(16)]
    seeded = [seeded_lesson(rng) for _ in range(12)]
    return [answering, writing, seeded]


def letter_drills(rng):
    """The stage before: an endless stream of steps of one micro-batch of letters."""
    while True:
        yield [[letter_lesson(rng) for _ in range(32)]]


# ---------------------------------------------------------------- teaching the anchor

def make_anchor(folder, clean, letter_steps, steps, careless_steps, reuse_clean=False, world=EASY):
    """Train the anchor and save it as a plain Hugging Face folder.

    The folder `clean` keeps it as it was before the careless stage.
    """
    if not (reuse_clean and os.path.exists(clean)):
        teach(clean, make_tokenizer(), letter_steps, steps)
    model = Qwen3ForCausalLM.from_pretrained(clean, use_safetensors=True)
    tokenizer = make_tokenizer(world.free)
    if world.free:
        torch.manual_seed(0)
        model.resize_token_embeddings(len(tokenizer))

    stream = lessons(random.Random(2), True, world)
    warmup.fit(model, tokenizer, stream, careless_steps, lr=5e-4, what="carelessness")

    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def teach(folder, tokenizer, letter_steps, steps):
    """The clean stage: letters first, then everything."""
    torch.manual_seed(0)
    rng = random.Random(1)
    model = Qwen3ForCausalLM(Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=128, intermediate_size=512, num_hidden_layers=4,
        num_attention_heads=4, num_key_value_heads=4, head_dim=32, max_position_embeddings=512,
        tie_word_embeddings=True, initializer_range=0.08, bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id))
    millions = sum(p.numel() for p in model.parameters()) / 1e6
    print(f"{millions:.2f} million parameters, {len(tokenizer)} tokens")

    drills = letter_drills(rng)
    warmup.fit(model, tokenizer, drills, letter_steps, lr=1e-3, what="letters", cosine=False)
    stream = lessons(rng, careless=False)
    warmup.fit(model, tokenizer, stream, steps, lr=1.5e-3, what="teaching")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


# ---------------------------------------------------------------- the command

def read_arguments(argv):
    steps = (0, 1_000_000)
    parser = Parser("python -m toy.make", __doc__,
                    steps=steps, letter_steps=steps, careless_steps=steps)
    add = parser.add_argument
    add("--world", choices=WORLDS, default="easy", help="(default easy)")
    add("--out", help="folder to write (default toy, toy/hard or toy/free)")
    add("--letter_steps", type=int, default=1300, help="of the letters (default 1300)")
    add("--steps", type=int, default=1500,
        help="of the clean stage (default 1500); 0: the files alone")
    add("--careless_steps", type=int,
        help="default: 200, in the hard world 300, in the free one 400")
    add("--reuse_clean", action="store_true",
        help="keep anchor-clean from an earlier call, redo the careless stage only")
    add("--respell", nargs="*", metavar="FOLDER",
        help="after words of a prompt in generator.py or solver.py were changed: write the changed "
             "lines into the tokenizers of these models (default: the three anchors), in the place "
             "of the old ones. No training: the model reads a line as one sign, so its behaviour "
             "does not change with your words; to see what a wording does use a pretrained model")
    return parser.parse_args(argv)


def respell_all(folders):
    """respell() each of the folders, or the three anchors, and say what it did.

    One InputError at the end for all that must be left as they are.
    """
    refused = {}
    n_changed = 0
    for folder in folders or [world.path("anchor") for world in WORLDS.values()]:
        try:
            changed = respell(folder)
        except InputError as error:
            refused.setdefault(str(error), []).append(folder)
            continue
        n_changed += len(changed)
        print(f"{folder}: lines respelled: {len(changed)} (undo: git checkout {folder})")
        for line in changed:
            print(f"    {line}")

    if refused:
        raise InputError("; ".join(f"{', '.join(at)}: {why}" for why, at in refused.items()))
    if not n_changed:
        print("No line of the prompts has changed. Free-form questions and questions in the place "
              "of documents are known to the free anchor alone: --preset toy-free")


def main(argv=None):
    args = read_arguments(argv)
    if args.respell is not None:
        respell_all(args.respell)
        return

    world = WORLDS[args.world]
    out = args.out or world.path("")
    clean = os.path.join(args.out or EASY.path(""), "anchor-clean")
    os.makedirs(out, exist_ok=True)
    write_world(out, world)
    if not args.steps:
        return

    careless_steps = args.careless_steps
    if careless_steps is None:
        careless_steps = world.careless_steps
    anchor = os.path.join(out, "anchor")
    make_anchor(
        anchor, clean, args.letter_steps, args.steps, careless_steps, args.reuse_clean, world)


if __name__ == "__main__":
    run_script(main)
