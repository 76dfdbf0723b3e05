"""A supervised warm start: teaches a small model the two formats of this project, the generator's JSON and the solver's box.

    python warmup.py --model PATH --demos demos.jsonl --out PATH-warm

    loss = mean over response tokens of -log pi(token)          (one mean over the whole batch, prompts carry no loss)

A demonstration is {content, question_text, choices, ground_truth}. Each gives two pairs, rendered with the project's own prompts and the model's own
chat template: (document -> the question as JSON) and (question -> the answer with its box).

    symbol        meaning
    pair          (prompt text, response text)
    micro-batch   a list of pairs padded together; a step is one or more of them

Departs from the paper: its 4B and 8B anchors need none of this, they follow both prompts as they are. A 135M model boxes almost no answer and writes no
valid JSON, so RL would never see a reward. The embedded world's anchor is made with the same fit().
"""
import argparse
import json
import math
import random

import torch
from tqdm import tqdm

import generator
import solver
from data import InputError, Question, load_items, read_question, run_script
from policy import chat_ids, chat_stop_ids, load_model


def generator_pair(demo):
    """A demonstration -> (generator prompt, JSON)."""
    fields = {key: demo[key] for key in ("question_text", "choices", "ground_truth")}
    return generator.PROMPT.format(document=demo["content"]), json.dumps(fields, ensure_ascii=False)


def solver_pair(demo, letter=None):
    """A demonstration -> (solver prompt, answer with its letter in a box); the letter follows the value, which is the easiest binding to learn."""
    question = Question(demo["question_text"], demo["choices"], demo["ground_truth"])
    letter = letter or question.letter
    return solver.prompt_text(question), f"The answer is {question.ground_truth} \\boxed{{{letter}}}"


def encode_pair(tokenizer, pair):
    """(prompt, response) -> (ids, labels), the labels -100 where no loss is; the response ends with the token that ends a turn.

    A response may also come as [(text, learned), ...], for exercises in which some words cannot be known beforehand.
    """
    ids = chat_ids(tokenizer, pair[0])
    labels = [-100] * len(ids)
    for text, learned in [(pair[1], True)] if isinstance(pair[1], str) else pair[1]:
        piece = tokenizer(text, add_special_tokens=False).input_ids
        ids, labels = ids + piece, labels + (piece if learned else [-100] * len(piece))
    stop = chat_stop_ids(tokenizer)[0]
    return ids + [stop], labels + [stop]


def batch_loss(model, tokenizer, pairs):
    """List of pairs -> (summed loss over response tokens, their number)."""
    rows = [encode_pair(tokenizer, pair) for pair in pairs]
    longest = max(len(ids) for ids, _ in rows)
    ids = torch.zeros(len(rows), longest, dtype=torch.long)                 # (B, L); what fills the end is masked, so any id will do
    mask = torch.zeros(len(rows), longest, dtype=torch.long)
    labels = torch.full((len(rows), longest), -100)
    for i, (row, row_labels) in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
        mask[i, : len(row)] = 1
        labels[i, : len(row)] = torch.tensor(row_labels)
    device = next(model.parameters()).device
    ids, mask, labels = ids.to(device), mask.to(device), labels.to(device)
    hidden = model.base_model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
    kept = labels[:, 1:] != -100                                            # (B, L-1)
    logits = model.get_output_embeddings()(hidden[:, :-1][kept])            # (tokens, V): the head only where a loss is
    return torch.nn.functional.cross_entropy(logits.float(), labels[:, 1:][kept], reduction="sum"), int(kept.sum())


def fit(model, tokenizer, batches, steps, lr, what="warm start", cosine=True):
    """Train `model` in place on `steps` items of `batches`, each a list of micro-batches of pairs. Returns the last loss, smoothed.

    The learning rate rises over the first twentieth and falls along a cosine, or stays.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.98), weight_decay=0.01)
    model.train()
    bar = tqdm(range(steps), desc=what, unit="step")
    smooth = 0.0
    for step in bar:
        scale = min(1.0, 20 * (step + 1) / steps) * (0.5 * (1 + math.cos(math.pi * step / steps)) if cosine else 1.0)
        for group in optimizer.param_groups:
            group["lr"] = lr * scale
        micro_batches = [pairs for pairs in next(batches) if pairs]
        total, n_tokens = 0.0, 0
        for pairs in micro_batches:
            loss, n = batch_loss(model, tokenizer, pairs)
            loss.backward()
            total, n_tokens = total + loss.item(), n_tokens + n
        for p in model.parameters():
            p.grad /= n_tokens
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        smooth += (total / n_tokens - smooth) / min(step + 1, 50)          # mean of the first steps, then a running one
        bar.set_postfix(loss=f"{smooth:.3f}")
    model.eval()
    return smooth


def load_demos(path):
    """Demonstrations of a JSON or JSONL file, checked like a question file: {content, question_text, choices, ground_truth}."""
    def read_demo(item, number, where):
        question = read_question(item, number, where)
        content = item.get("content")
        if not isinstance(content, str) or not content.strip():
            raise InputError(f"{where}: 'content' is missing or empty, expected the document the question was written from")
        if not question.choices:
            raise InputError(f"{where}: no 'choices', expected a multiple-choice question")
        return {"content": content, "question_text": question.question_text, "choices": question.choices, "ground_truth": question.ground_truth}
    return load_items(path, ("question_id", "id"), read_demo)


def epochs(demos, batch, seed=0):
    """An endless, seeded stream of steps: `batch` demonstrations as generator pairs, and as solver pairs with their options shuffled.

    Shuffled, because a file that always lists the right option first would teach the letter A.
    """
    rng = random.Random(seed)
    while True:
        order = rng.sample(demos, len(demos))
        for i in range(0, len(order), batch):
            some = order[i:i + batch]
            shuffled = [{**demo, "choices": rng.sample(demo["choices"], len(demo["choices"]))} for demo in some]
            yield [[generator_pair(demo) for demo in some], [solver_pair(demo) for demo in shuffled]]


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="model folder or hub id to start from")
    parser.add_argument("--demos", required=True, help="JSON or JSONL of {content, question_text, choices, ground_truth}")
    parser.add_argument("--out", required=True, help="folder to write")
    parser.add_argument("--epochs", type=float, default=1.0, help="passes over the demonstrations (default 1)")
    parser.add_argument("--batch", type=int, default=4, help="demonstrations per step (default 4)")
    parser.add_argument("--lr", type=float, default=1e-4, help="peak learning rate (default 1e-4)")
    parser.add_argument("--limit", type=int, help="only the first so many demonstrations")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (0: torch's default)")
    args = parser.parse_args(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    demos = load_demos(args.demos)[:args.limit]
    model, tokenizer = load_model(args.model)
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    steps = max(1, math.ceil(args.epochs * len(demos) / args.batch))
    print(f"{len(demos)} demonstrations, {steps} steps of {args.batch}", flush=True)
    loss = fit(model, tokenizer, epochs(demos, args.batch), steps, args.lr)
    model.save_pretrained(args.out)
    tokenizer.save_pretrained(args.out)
    print(f"loss per response token {loss:.3f}; {args.out} loads with from_pretrained, and as train.py --model {args.out}")


if __name__ == "__main__":
    run_script(main)
