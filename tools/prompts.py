"""Does a model follow the generator's prompt? Drafts by each prompt, counted and shown.

    python -m tools.prompts MODEL --documents FILE                    both prompts, 8 documents
    python -m tools.prompts MODEL --documents FILE --prompts hard     one of them

    valid        share of drafts that are a question
    repaired     share of those in which a slip was mended (engine/drafts.py)
    reasons      why the others are none; `abstained`: the model found no material and said so
    tokens       mean length of a draft; `cut`: share that ran into --max_response_tokens
    prompt       mean length of the prompt, the document included

Nothing is trained, and no question is answered: whether a question is any good, tools.quality says.
"""
import json
from collections import Counter
from pathlib import Path

import torch

import config
import generator as generator_role
from data import Document, InputError, keep_fitting
from engine import flags
from engine.arguments import Parser
from engine.readers import load_documents
from engine.speech import run_script
from engine.spelling import check_spelling
from policy import Policy


def draft(generator, documents, prompts, args):
    """The generator reads every document -> the drafts, document after document."""
    cfg = config.Config(
        prompts=prompts, questions_per_doc=args.drafts, temperature=args.temperature,
        max_prompt_tokens=args.max_prompt_tokens, max_response_tokens=args.max_response_tokens,
        rows_at_once=args.rows_at_once)

    def length(document):
        return len(generator.prompt_ids(generator_role.prompt_text(document, prompts=prompts)))

    empty = generator_role.prompt_text(Document("", ""), prompts=prompts)
    check_spelling(generator.tokenizer, {"generator.py": empty})
    kept, skipped = keep_fitting(documents, length, cfg.max_prompt_tokens, "documents")
    if skipped:
        print(f"{prompts}: {skipped} documents left out as too long")
    seed_words = (args.seed, "prompts", "write")
    drafts = []
    # the generator stands in for the solver, which only counts a question's tokens
    for group in generator_role.write_questions(generator, kept, seed_words, cfg, generator):
        drafts += group
    return drafts


def summary(drafts):
    """Drafts -> what is counted of them."""
    valid = [x for x in drafts if x.question is not None]
    repairs = Counter()
    for x in valid:
        repairs.update(set(x.repairs))
    n = len(drafts)
    return {
        "drafts": n,
        "valid": len(valid) / n,
        "repaired": sum(bool(x.repairs) for x in valid) / max(1, len(valid)),
        "repairs": dict(repairs),
        "reasons": dict(Counter(x.reason for x in drafts if x.question is None).most_common()),
        "tokens": sum(len(x.rollout.response) for x in drafts) / n,
        "cut": sum(not x.rollout.finished for x in drafts) / n,
        "prompt": sum(len(x.rollout.prompt) for x in drafts) / n,
    }


def row(prompts, found):
    """A summary -> a line of the table."""
    reasons = ", ".join(f"{name} {n}" for name, n in found["reasons"].items()) or "-"
    return (f"| {prompts} | {found['drafts']} | {100 * found['valid']:.0f} % "
            f"| {100 * found['repaired']:.0f} % | {found['tokens']:.0f} "
            f"| {100 * found['cut']:.0f} % | {found['prompt']:.0f} | {reasons} |")


def shown(draft, width=700):
    """A draft -> Markdown: what became of it, and what was written."""
    what = "valid" if draft.question is not None else draft.reason
    if draft.repairs:
        what += f" (repaired: {', '.join(sorted(set(draft.repairs)))})"
    text = draft.rollout.text.strip()
    if len(text) > width:
        text = f"{text[:width // 2]} [...] {text[-width // 2:]}"
    return f"{what}; {len(draft.rollout.response)} tokens\n```\n{text}\n```"


def some_of(drafts, n):
    """n drafts, good and bad in turn as far as there are both, in the order they were written."""
    good = [x for x in drafts if x.question is not None]
    bad = [x for x in drafts if x.question is None]
    n_good = min(len(good), max(n // 2, n - len(bad)))
    return good[:n_good] + bad[:n - n_good]


def main(argv=None):
    args = read_arguments(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    cfg = config.Config()
    generator = Policy("generator", flags.find_model("MODEL", args.model), 0.0, cfg)
    documents = load_documents(
        args.documents, max_tokens=args.max_chunk_tokens,
        count_tokens=lambda text: len(generator.tokenizer(text).input_ids))[:args.limit]

    print("| prompts | drafts | valid | repaired | tokens | cut | prompt | reasons |")
    print("|---|--:|--:|--:|--:|--:|--:|---|")
    written = {}
    for prompts in args.prompts:
        written[prompts] = draft(generator, documents, prompts, args)
        print(row(prompts, summary(written[prompts])), flush=True)
    for prompts, drafts in written.items():
        for x in some_of(drafts, args.show):
            print(f"\n{prompts}: {shown(x)}")
    if args.json:
        found = {prompts: summary(drafts) for prompts, drafts in written.items()}
        Path(args.json).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return written


def read_arguments(argv):
    parser = Parser("python -m tools.prompts", __doc__)
    add = parser.add_argument
    names = config.CHOICES["prompts"]
    add("model", metavar="MODEL", help="model folder, hub id or short name")
    add("--documents", required=True, help="as train.py --documents")
    add("--prompts", nargs="+", choices=names, default=list(names), help="(default both)")
    add("--limit", type=int, default=8, help="only the first so many documents (default 8)")
    add("--drafts", type=int, default=4, help="of each document (default 4)")
    add("--show", type=int, default=10, help="so many of each prompt, good and bad (default 10)")
    add("--seed", type=int, default=0, help="of the sampling (default 0)")
    add("--temperature", type=float, default=0.7, help="(default 0.7)")
    add("--max_chunk_tokens", type=int, default=256,
        help="longest piece of a text file; preset small has 512, the paper's 3072 (default 256)")
    add("--max_prompt_tokens", type=int, default=4096,
        help="longer prompts are left out and counted (default 4096)")
    add("--max_response_tokens", type=int, default=1024, help="drafts are cut here (default 1024)")
    add("--rows_at_once", type=int, default=32,
        help="most drafts sampled side by side; 0: as many as fit (default 32)")
    add("--threads", type=int, default=0, help="CPU threads (0: torch's default)")
    add("--json", metavar="FILE", help="write the numbers here")
    args = parser.parse_args(argv)
    if not flags.COLDEST <= args.temperature <= 1000:
        raise InputError(f"--temperature {args.temperature}: expected a number of {flags.COLDEST} "
                         "to 1000")
    return args


if __name__ == "__main__":
    run_script(main)
