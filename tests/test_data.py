"""The document stream reads everything once per epoch; a prompt over the limit is counted."""
import doctest
import random
from collections import Counter

import pytest

import data
from data import Document, InputError, document_batch, keep_fitting


def test_doctests():
    assert doctest.testmod(data).failed == 0


# ---------------------------------------------------------------- the stream

def stream(n_documents, D, seed, iterations):
    numbers = []
    for t in range(iterations):
        numbers += document_batch(n_documents, D, seed, t)
    return numbers


@pytest.mark.parametrize("n_documents, D", [
    (1, 1), (1, 4), (7, 1), (7, 3), (7, 7), (7, 10), (7, 22), (12, 4), (290, 128)])
def test_every_epoch_reads_every_document_once(n_documents, D):
    numbers = stream(n_documents, D, seed=42, iterations=4 * n_documents)
    assert len(numbers) == 4 * n_documents * D
    epochs = [numbers[i:i + n_documents] for i in range(0, len(numbers), n_documents)]
    assert all(sorted(epoch) == list(range(n_documents)) for epoch in epochs)


def test_batches_are_slices_of_one_stream():
    numbers = stream(7, 3, seed=1, iterations=70)
    assert numbers == stream(7, 10, seed=1, iterations=21)
    assert numbers == stream(7, 21, seed=1, iterations=10)


def test_stream_depends_on_seed_and_epoch_only():
    # nothing to restore on resume but the iteration
    assert document_batch(100, 8, 0, 5) == document_batch(100, 8, 0, 5)
    assert document_batch(100, 100, 0, 0) != document_batch(100, 100, 1, 0)
    assert document_batch(100, 100, 0, 0) != document_batch(100, 100, 0, 1)
    random.seed(0)
    state = random.getstate()
    document_batch(100, 8, 0, 5)
    assert random.getstate() == state


def test_a_document_can_come_twice_at_the_epoch_boundary():
    batches = [document_batch(5, 4, seed, 1) for seed in range(50)]
    assert any(len(set(batch)) < 4 for batch in batches)


def test_shuffles_are_uniform_enough():
    first = Counter(document_batch(4, 1, seed, 0)[0] for seed in range(2000))
    # 500 expected, standard deviation 19
    assert all(400 < first[number] < 600 for number in range(4))


def test_an_empty_stream_is_refused():
    for n_documents, D in [(0, 4), (4, 0)]:
        with pytest.raises(ValueError, match="at least 1"):
            document_batch(n_documents, D, 0, 0)


# ---------------------------------------------------------------- prompts over the limit

def test_keep_fitting_counts_what_it_leaves_out():
    documents = [Document(str(n), "word " * n) for n in (5, 2, 3, 4)]
    kept, n_skipped = keep_fitting(documents, lambda d: data.count_words(d.content), 3, "documents")
    assert [d.doc_id for d in kept] == ["2", "3"] and n_skipped == 2
    assert keep_fitting([], len, 3, "documents") == ([], 0)


def test_what_does_not_fit_leaves_every_iteration_its_documents():
    """Nine documents, of which three are too long: each iteration reads two of the other six."""
    lengths = [1, 9, 1, 1, 9, 1, 9, 1, 1]
    kept, left_out = keep_fitting(list(range(9)), lambda i: lengths[i], 3, "documents")
    assert left_out == 3
    read = []
    for t in range(3):
        batch = document_batch(len(kept), 2, seed=0, iteration=t)
        assert len(batch) == 2
        read += [kept[i] for i in batch]
    assert sorted(read) == [0, 2, 3, 5, 7, 8]


def test_keep_fitting_refuses_when_nothing_fits():
    message = (r"none of the 2 dev questions fits in max_prompt_tokens = 3: .* has 4 tokens; "
               "raise max_prompt_tokens")
    with pytest.raises(InputError, match=message):
        keep_fitting(["aaaa", "aaaaa"], len, 3, "dev questions")
