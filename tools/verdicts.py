r"""What the verifier says about tests/answer_pairs.jsonl, per kind, beside math-verify alone.

    python -m tools.verdicts             # a line per kind; about two minutes of one core
    python -m tools.verdicts --write     # and the table in docs/results/verifier.md, known_wrong
    python -m tools.verdicts --wrong     # and every wrong verdict on a pair that is not held out

    code     meaning
    right    share of pairs with the verdict that is known
    farmed   false equalities: a wrong answer called equal, which a policy finds and repeats
    missed   equal pairs called not equal: each costs one reward
    unknown  the check ran into its time limit

"math-verify" alone is its parse and verify with their defaults, each text between dollars.
"""
import json
import logging
from collections import Counter
from pathlib import Path

from data import InputError
from engine.arguments import Parser
from engine.speech import run_script
from engine.verify import Verifier
from tools.pairs import FILE

PAGE = Path(__file__).resolve().parent.parent / "docs/results/verifier.md"
MARK = "<!-- python -m tools.verdicts --write -->"
OUTCOMES = {(True, True): "right", (False, False): "right", (True, False): "farmed",
            (False, True): "missed", (None, True): "unknown", (None, False): "unknown"}


def main():
    parser = Parser("python -m tools.verdicts", __doc__)
    parser.add_argument("--write", action="store_true", help="the table in docs/results")
    parser.add_argument("--wrong", action="store_true", help="wrong verdicts, none held out")
    parser.add_argument("--ours", action="store_true", help="without math-verify alone")
    flags = parser.parse_args()
    if flags.ours and flags.write:
        raise InputError("--ours --write: the table has math-verify, too, expected one of both")

    pairs = [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()]
    with Verifier(seconds=20) as verifier:
        ours = verifier.check([(pair["answer"], pair["truth"]) for pair in pairs])
    theirs = None
    if not flags.ours:
        theirs = [alone(pair["answer"], pair["truth"]) for pair in pairs]

    text = table(pairs, ours, theirs)
    print(text)
    if flags.wrong:
        for pair, verdict in zip(pairs, ours):
            if verdict is not pair["equal"] and not pair.get("held_out"):
                outcome = OUTCOMES[verdict, pair["equal"]]
                print(f"{outcome:8}{pair['kind']:20}{pair['answer']} ~ {pair['truth']}")
    if flags.write:
        mark(pairs, ours)
        before, _, after = PAGE.read_text(encoding="utf-8").split(MARK)
        PAGE.write_text(f"{before}{MARK}\n\n{text}\n\n{MARK}{after}", encoding="utf-8")


def mark(pairs, ours):
    """known_wrong on the pairs we get wrong, for the tests."""
    for pair, verdict in zip(pairs, ours):
        pair.pop("known_wrong", None)
        if verdict is not pair["equal"]:
            pair["known_wrong"] = True
    lines = [json.dumps(pair, ensure_ascii=False) + "\n" for pair in pairs]
    FILE.write_text("".join(lines), encoding="utf-8")


def alone(answer, truth):
    """math-verify's word with its defaults, in this process."""
    from math_verify import parse, verify
    logging.disable(logging.ERROR)
    return bool(verify(parse(f"${truth}$"), parse(f"${answer}$")))


def table(pairs, ours, theirs):
    """The lines of a Markdown table: kinds, then all pairs, then those held out."""
    lines = ["| kind | pairs | right | farmed | missed | math-verify: right | farmed | missed |",
             "|---|--:|--:|--:|--:|--:|--:|--:|"]
    groups = {}
    for i, pair in enumerate(pairs):
        groups.setdefault(pair["kind"], []).append(i)
    for kind in sorted(groups):
        lines.append(line(kind, groups[kind], pairs, ours, theirs))

    held_out = [i for i, pair in enumerate(pairs) if pair.get("held_out")]
    lines.append(line("**all**", range(len(pairs)), pairs, ours, theirs))
    lines.append(line("**held out**", held_out, pairs, ours, theirs))
    return "\n".join(lines)


def line(name, places, pairs, ours, theirs):
    counts = []
    for verdicts in (ours, theirs):
        if verdicts is None:
            counts += ["-"] * 3
            continue
        found = Counter(OUTCOMES[verdicts[i], pairs[i]["equal"]] for i in places)
        counts += [found["right"], found["farmed"], found["missed"] + found["unknown"]]
    return f"| {name} | {len(places)} | " + " | ".join(map(str, counts)) + " |"


if __name__ == "__main__":
    run_script(main)
