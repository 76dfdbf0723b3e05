"""Small seeded damages of bytes and texts."""
import random

SNIPPETS = [
    b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"\r", b"\n\n", b'"', b"\\", b"\\u", b"\\ud800", b"{",
    b"}", b"[", b"]", b",", b":", b"null", b"NaN", b"1e99999", b"-", b"\t", b"|", b"\x1b[31m",
    b"\xc3", b"\xf0\x9f\x92\xa9", b"[" * 3000, b'{"a":' * 3000, b"9" * 5000, b"\x1f\x8b\x08",
    b"PAR1", b"%PDF-", "\u202e\u2028\u0085".encode(), b"<|im_start|>"]


def cut(rng, data):
    return data[:rng.randrange(len(data) + 1)]


def cut_front(rng, data):
    return data[rng.randrange(len(data) + 1):]


def flip(rng, data):
    data = bytearray(data)
    for _ in range(rng.choice([1, 1, 3, 20]) if data else 0):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(data)


def drop(rng, data):
    a, b = some(rng, data)
    return data[:a] + data[b:]


def twice(rng, data):
    a, b = some(rng, data)
    return data[:b] + data[a:]


def insert(rng, data):
    a = rng.randrange(len(data) + 1)
    return data[:a] + rng.choice(SNIPPETS) + data[a:]


def overwrite(rng, data):
    a, b = some(rng, data)
    return data[:a] + rng.choice(SNIPPETS) + data[b:]


def swap(rng, data):
    a, b = some(rng, data)
    c = rng.randrange(b, len(data) + 1)
    return data[:a] + data[b:c] + data[a:b] + data[c:]


def other_encoding(rng, data):
    text = data.decode("utf-8", "replace")
    return text.encode(rng.choice(["utf-16", "utf-16-le", "utf-32", "latin-1", "utf-8-sig"]),
                       "replace")


def other_newlines(rng, data):
    return data.replace(b"\n", rng.choice([b"\r\n", b"\r", b"\n\n", b" \n"]))


def some(rng, data):
    """Two places, a short way apart as often as a long one."""
    a = rng.randrange(len(data) + 1)
    span = rng.choice([1, 10, 100, len(data) + 1])
    return a, min(len(data), a + rng.randrange(span))


BYTES = [cut, cut_front, flip, drop, twice, insert, overwrite, swap, other_encoding, other_newlines]


def damaged(rng, data):
    """Bytes -> (how they were damaged, the damaged bytes), by one to three mutators."""
    names = []
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        mutator = rng.choice(BYTES)
        data = mutator(rng, data)
        names.append(mutator.__name__)
    return "+".join(names), data


def seeded(seed, *words):
    return random.Random(f"{seed} {words}")
