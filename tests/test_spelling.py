"""A tokenizer that cannot spell a prompt is found out, and one that can is left in peace."""
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import generator
import solver
from data import Document, InputError, Question
from engine.spelling import check_spelling, spells
from toy import make


def byte_level(**special):
    """Spells every text, as Qwen3's and SmolLM2's do; special: the names of its special tokens."""
    signs = ["<|endoftext|>"] + sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE({sign: i for i, sign in enumerate(signs)}, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return PreTrainedTokenizerFast(tokenizer_object=inner, **special)


def word_level():
    inner = Tokenizer(models.WordLevel({"<unk>": 0, "one": 1, "word": 2}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>")


class Slow:
    """Gives no offsets, as tokenizers in Python do."""
    is_fast = False
    unk_token_id, unk_token = 0, "<unk>"

    def __call__(self, text, add_special_tokens):
        self.input_ids = [{"one": 1, "word": 2}.get(word, 0) for word in text.split()]
        return self


def test_words_that_are_unknown_are_named_once_in_their_order():
    text = "one odd word, one odd number"
    assert spells(word_level(), text) == ["odd", ",", "number"]
    assert spells(Slow(), text) == ["odd", "word,", "number"]
    assert spells(word_level(), "one word") == spells(Slow(), "one word") == []


@pytest.mark.parametrize("special", [
    # Qwen3 and SmolLM2
    dict(eos_token="<|endoftext|>"),
    dict(eos_token="<|endoftext|>", bos_token="<|endoftext|>", unk_token="<|endoftext|>")])
def test_byte_level_tokenizers_spell_everything(special):
    tokenizer = byte_level(**special)
    for text in (generator.PROMPT, solver.FREE_FORM, "θ ≈ 漢字 \\boxed{}", "so <|endoftext|> ends"):
        assert spells(tokenizer, text) == []


def test_the_embedded_worlds_tokenizer_spells_its_prompts_and_no_other_words():
    tokenizer = make.make_tokenizer()
    prompt = generator.prompt_text(Document("", ""))
    answered = solver.prompt_text(Question("", ["", ""], ""))
    check_spelling(tokenizer, {"generator.py": prompt, "solver.py": answered})

    edited = answered.replace("the right option", "the true option")
    with pytest.raises(InputError) as error:
        check_spelling(tokenizer, {"generator.py": prompt, "solver.py": edited})
    assert str(error.value).startswith("solver.py: the model cannot read the prompt line 'Think")
    assert "unknown: Think, step, by" in str(error.value)
