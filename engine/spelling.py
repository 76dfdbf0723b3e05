"""Says which line of a prompt a model's tokenizer cannot spell.

A tokenizer with a token for what it does not know puts it there without a word, and the model
reads a gap. Byte-level tokenizers (Qwen3, SmolLM2) spell every text; the embedded world's knows
its own words and, as one sign each, the lines of the prompts.
"""
from data import InputError


def spells(tokenizer, text):
    """A text -> the words in it that the tokenizer cannot spell, each once; [] for most.

    Some models call <|endoftext|> their unknown token: one that stands in the text is no gap.
    """
    unknown = tokenizer.unk_token_id
    if unknown is None:
        return []

    if not tokenizer.is_fast:
        # no offsets: every word for itself
        pieces = text.split()
        gaps = [word for word in pieces if unknown in encode(tokenizer, word).input_ids]
    else:
        found = encode(tokenizer, text, return_offsets_mapping=True)
        gaps = [
            text[start:end]
            for token, (start, end) in zip(found.input_ids, found.offset_mapping)
            if token == unknown]
    return list(dict.fromkeys(gap for gap in gaps if gap != tokenizer.unk_token))


def encode(tokenizer, text, **more):
    return tokenizer(text, add_special_tokens=False, **more)


def check_spelling(tokenizer, prompts):
    """{file: its prompt, with nothing put into it} -> None.

    InputError for the first line that the tokenizer cannot spell. A prompt of two messages is a
    long one (prompts/hard).
    """
    for file, prompt in prompts.items():
        advice = SIGNS
        if not isinstance(prompt, str):
            file, advice = file.replace(".py", ".txt in prompts/hard"), LONG
            prompt = "\n".join(prompt)
        for line in prompt.splitlines():
            unknown = spells(tokenizer, line)
            if unknown:
                raise InputError(
                    f"{file}: the model cannot read the prompt line {shorten(line)!r} (unknown: "
                    f"{', '.join(unknown[:3])}); {advice}")


SIGNS = (
    "the embedded world's model reads each line of a prompt as one sign: `python -m toy.make "
    "--respell` gives a changed line the sign of the old one, and the model then does what it did, "
    "whatever the line says")
LONG = "the embedded world's models know --prompts plain alone"


def unreadable(tokenizer, questions, path):
    """Questions of a file -> one line to say if the tokenizer cannot spell some, or None."""
    bad, words = 0, {}
    for question in questions:
        gaps = spells(tokenizer, " ".join([question.question_text, *question.choices]))
        bad += bool(gaps)
        words |= dict.fromkeys(gaps)
    if not bad:
        return None
    return (f"note: {path}: {bad} of {len(questions)} questions hold words that this model cannot "
            f"read ({', '.join(list(words)[:5])}); it sees gaps there")


def shorten(line, most=60):
    return line if len(line) <= most else f"{line[:most - 3]}..."
