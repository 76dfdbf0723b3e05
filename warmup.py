"""A supervised warm start: teaches a small model the generator's JSON and the solver's box.

    python warmup.py --model PATH --demos demos.jsonl --out PATH-warm

    loss = mean over response tokens of -log pi(token)

It is one mean over all tokens of a step; prompts carry no loss. A demonstration is {content,
question_text, choices, ground_truth}. Each gives two pairs, rendered with the project's own prompts
and the model's own chat template: (document -> the question as JSON) and (question -> the answer
with its box); with --drills a third, which ties letters to options.

    symbol        shape     meaning
    pair                    (prompt text, response text)
    pass                    a list of pairs padded together; a step is one or more of them
    ids, labels   (B, L)    B pairs of at most L tokens; labels are -100 where no loss is

Departs from the paper: its 4B and 8B anchors have none of this (with our prompts nobody has tried
them). A 135M model boxes almost no answer and writes no valid JSON, so RL would never see a reward.
The embedded world's anchor is made with the same fit().
"""
from engine import demonstrations

# Before torch is imported: --help, a misspelt flag and a missing file are answered at once.
ASKED = demonstrations.from_command_line(__doc__) if __name__ == "__main__" else None

import itertools
import json
import math
import random
from dataclasses import dataclass, replace
from string import ascii_uppercase

import torch

import generator
import solver
from config import Config
from data import Document, InputError, Question
from engine.chat import chat_ids, chat_stop_ids, text_ids
from engine.outputs import whole
from engine.progress import long_bar
from engine.speech import run_script
from engine.trial import check_model
from policy import Policy


# ---------------------------------------------------------------- demonstrations become pairs

@dataclass(frozen=True)
class How:
    """How demonstrations are shown: options of the command, off by default."""
    prompts: str = "plain"
    # the JSON's key stands before its options, so that it is known when they are written
    key_first: bool = False
    # the solver is asked with the document above the question, as by train.py --open_book
    open_book: bool = False
    # beside them: which letter belongs to which option
    drills: bool = False
    # both, generator or solver: whose pairs are learned
    role: str = "both"


def generator_pair(demo, how=How()):
    """A demonstration -> (generator prompt, JSON)."""
    names = ["question_text", "choices", "ground_truth"]
    if how.key_first:
        names[1:] = ["ground_truth", "choices"]
    prompt = generator.prompt_text(Document("", demo["content"]), prompts=how.prompts)
    return prompt, json.dumps({name: demo[name] for name in names}, ensure_ascii=False)


def solver_pair(demo, letter=None, how=How()):
    """A demonstration -> (solver prompt, answer with its letter in a box).

    The letter follows the value, which is the easiest binding to learn.
    """
    question = question_of(demo, how)
    answer = answer_text(question.ground_truth, letter or question.letter)
    return solver.prompt_text(question, how.prompts), answer


def answer_text(option, letter):
    return f"The answer is {option} \\boxed{{{letter}}}"


def drill(demo, rng, how=How()):
    """A demonstration -> (solver prompt, [(text, learned), ...]): every option with its letter, in
    a random order, and only the letters are learned.

    A small model picks the right option and boxes another's letter. Here nothing but the letter can
    be wrong.
    """
    question = question_of(demo, how)
    pieces = []
    for i in rng.sample(range(len(question.choices)), len(question.choices)):
        line = f"The answer is {question.choices[i]} \\boxed{{"
        pieces += [("\n" * bool(pieces) + line, False), (ascii_uppercase[i] + "}", True)]
    return solver.prompt_text(question, how.prompts), pieces


def question_of(demo, how):
    passage = demo["content"] if how.open_book else ""
    return Question(demo["question_text"], demo["choices"], demo["ground_truth"], passage=passage)


def epochs(demos, batch, how=How(), seed=0):
    """An endless, seeded stream of steps of one to three passes, as passes_of says.

    The solver's choices are shuffled: a file that always lists the right one first would teach the
    letter A.
    """
    rng = random.Random(seed)
    while True:
        order = rng.sample(demos, len(demos))
        for i in range(0, len(order), batch):
            yield passes_of(order[i:i + batch], rng, how)


def passes_of(demos, rng, how):
    """-> lists of pairs: the generator's, the solver's, and with drills the drills."""
    passes = []
    if how.role != "solver":
        passes.append([generator_pair(demo, how) for demo in demos])
    if how.role != "generator":
        passes.append([solver_pair(reordered(demo, rng), how=how) for demo in demos])
        if how.drills:
            passes.append([drill(reordered(demo, rng), rng, how) for demo in demos])
    return passes


def reordered(demo, rng):
    return {**demo, "choices": rng.sample(demo["choices"], len(demo["choices"]))}


# ---------------------------------------------------------------- pairs become a loss

def encode_pair(tokenizer, pair):
    """(prompt, response) -> (ids, labels); the response ends with the token that ends a turn.

    A response may also come as [(text, learned), ...], for exercises in which some words cannot be
    known beforehand.
    """
    prompt, response = pair
    parts = [(response, True)] if isinstance(response, str) else response
    ids = chat_ids(tokenizer, prompt)
    labels = [-100] * len(ids)
    for text, learned in parts:
        piece = text_ids(tokenizer, text)
        ids = ids + piece
        labels = labels + (piece if learned else [-100] * len(piece))
    stop = chat_stop_ids(tokenizer)[0]
    return ids + [stop], labels + [stop]


def pad_pairs(tokenizer, pairs):
    """List of B pairs -> ids, mask, labels, each (B, L), padded on the right."""
    rows = [encode_pair(tokenizer, pair) for pair in pairs]
    longest = max(len(ids) for ids, _ in rows)

    # what fills the end is masked, so any id will do
    ids = torch.zeros(len(rows), longest, dtype=torch.long)                 # (B, L)
    mask = torch.zeros(len(rows), longest, dtype=torch.long)                # (B, L)
    labels = torch.full((len(rows), longest), -100)                         # (B, L)
    for i, (row, row_labels) in enumerate(rows):
        ids[i, :len(row)] = torch.tensor(row)
        mask[i, :len(row)] = 1
        labels[i, :len(row)] = torch.tensor(row_labels)
    return ids, mask, labels


def pass_loss(model, tokenizer, pairs):
    """List of pairs -> (summed loss over response tokens, their number)."""
    device = next(model.parameters()).device
    ids, mask, labels = (x.to(device) for x in pad_pairs(tokenizer, pairs))
    body = model.base_model(input_ids=ids, attention_mask=mask, use_cache=False)

    # the head only where a loss is
    kept = labels[:, 1:] != -100                                            # (B, L-1)
    hidden = body.last_hidden_state[:, :-1][kept]                           # (tokens, H)
    logits = model.get_output_embeddings()(hidden)                          # (tokens, V)
    loss = torch.nn.functional.cross_entropy(
        logits.float(), labels[:, 1:][kept], reduction="sum")
    return loss, int(kept.sum())


# ---------------------------------------------------------------- the training

def fit(model, tokenizer, batches, steps, lr, what="warm start", cosine=True):
    """Train `model` in place on `steps` items of `batches`, each a list of passes of pairs.

    Returns the last loss per response token, smoothed. The learning rate rises over the first
    twentieth and falls along a cosine, or stays.
    """
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=lr, betas=(0.9, 0.98), weight_decay=0.01)
    model.train()
    shown = long_bar(range(steps), desc=what, unit="step")
    smooth = 0.0
    for step in shown:
        for group in optimizer.param_groups:
            group["lr"] = lr * rate(step, steps, cosine)

        # one mean over all tokens of the step, however they are split into passes
        total, n_tokens = backward(model, tokenizer, next(batches))
        for p in model.parameters():
            p.grad /= n_tokens
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

        # a mean of the first steps, then a running one
        smooth += (total / n_tokens - smooth) / min(step + 1, 50)
        shown.set_postfix(loss=f"{smooth:.3f}")
    model.eval()
    return smooth


def rate(step, steps, cosine):
    """Share of the peak learning rate at a step, counted from 0."""
    rise = min(1.0, 20 * (step + 1) / steps)
    fall = 0.5 * (1 + math.cos(math.pi * step / steps)) if cosine else 1.0
    return rise * fall


def backward(model, tokenizer, passes):
    """Add up the gradients of some passes -> (their summed loss, their response tokens)."""
    total, n_tokens = 0.0, 0
    for pairs in passes:
        if not pairs:
            continue
        loss, n = pass_loss(model, tokenizer, pairs)
        loss.backward()
        total += loss.item()
        n_tokens += n
    return total, n_tokens


# ---------------------------------------------------------------- the command

def load(args, demos, how=How()):
    """-> model, tokenizer. InputError where train.py would refuse them, or a pair is too long."""
    cfg = Config(max_prompt_tokens=8, max_response_tokens=8, dtype="fp32", end_to_end="false")
    policy = Policy("solver", args.model, args.lr, cfg)
    longest = 0
    for demo in demos:
        for pair in itertools.chain(*passes_of([demo], random.Random(0), how)):
            ids, _ = encode_pair(policy.tokenizer, pair)
            longest = max(longest, len(ids))
    check_model(policy, replace(cfg, max_prompt_tokens=longest, max_response_tokens=0))
    return policy.model, policy.tokenizer


def main(argv=None):
    """argv: words of the command line; None: the one that was read before torch was imported."""
    args, demos = ASKED if argv is None else demonstrations.asked(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    how = How(args.prompts, args.key_first, args.open_book, args.drills, args.role)
    model, tokenizer = load(args, demos, how)

    steps = max(1, math.ceil(args.epochs * len(demos) / args.batch))
    print(f"{len(demos)} demonstrations, {steps} steps of {args.batch}", flush=True)
    loss = fit(model, tokenizer, epochs(demos, args.batch, how), steps, args.lr)

    if not math.isfinite(loss):
        raise InputError(f"the loss is {loss}, so nothing was saved; try a smaller --lr")
    with whole(args.out) as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    print(f"loss per response token {loss:.3f}; {args.out} loads with from_pretrained, "
          f"and as train.py --model {args.out}")


if __name__ == "__main__":
    run_script(main)
