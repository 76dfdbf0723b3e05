"""Questions of each skill of the embedded world, a file a skill: what a radar has its axes from.

    python -m studies.families OUT          OUT/largest.json, plus.json, day.json, order.json
    python evaluate.py toy/anchor RUN/solver --questions OUT/*.json --json families.json
    python -m studies.figures radar families.json

The dev and test questions of that world ask for the largest number; nobody asks for the other three
skills, which are its "out of domain". The triples of the first are those of the test part, which no
note and no dev question has. Sums, days and orders may stand in a note: the world holds out none of
them. There are 35 questions about days, so that file never has more.
"""
import json
import random
import sys
from pathlib import Path

from engine.arguments import Parser
from engine.outputs import folder_to_write
from engine.speech import run_script
from toy.world import ask, draw_fact

SKILLS = {"largest": "triple", "plus": "plus", "day": "day", "order": "order"}


def questions_of(skill, n, seed):
    """-> at most n questions of one skill, as a question file has them, no two with one text."""
    rng = random.Random(f"families, {skill}, {seed}")
    rows = []
    seen = set()
    # 35 days take some 150 draws; who has drawn in vain so often has them all
    vain = 0
    while len(rows) < n and vain < 1000:
        text, choices, right = ask(rng, draw_fact(rng, SKILLS[skill], "test"), skill)
        if text in seen:
            vain += 1
            continue
        vain = 0
        seen.add(text)
        rng.shuffle(choices)
        rows.append({"question_id": f"{skill}-{len(rows)}", "question_text": text,
                     "choices": choices, "ground_truth": right})
    return rows


def main(argv=None):
    parser = Parser("python -m studies.families", __doc__)
    parser.add_argument("out", metavar="OUT", help="folder to write")
    parser.add_argument("--limit", type=int, default=100, help="questions of each (default 100)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    folder_to_write("OUT", args.out)
    folder = Path(args.out)
    folder.mkdir(parents=True, exist_ok=True)
    for skill in SKILLS:
        rows = questions_of(skill, args.limit, args.seed)
        (folder / f"{skill}.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
        print(f"{folder / skill}.json: {len(rows)} questions")


if __name__ == "__main__":
    sys.exit(run_script(main))
