"""Model folders that nobody here chose: each is loaded right, or one line, and nothing of theirs is
ever run.
"""
import json
import os
import threading
import time

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

import fakes
from config import Config
from data import InputError
from engine import chat, room
from engine.chat import chat_ids, chat_stop_ids
from engine.models import load_model
from fakes import END, EOS


@pytest.fixture
def folder(tmp_path):
    fakes.make_model().save_pretrained(tmp_path)
    fakes.make_tokenizer().save_pretrained(tmp_path)
    return tmp_path


def refused(folder):
    """Loading it -> the one line that it ends in."""
    with pytest.raises(InputError) as caught:
        load_model(str(folder))
    line = str(caught.value)
    assert "\n" not in line and str(folder) in line
    return line


def change(folder, name="config.json", **fields):
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


# ---------------------------------------------------------------- config.json

@pytest.mark.parametrize("text, words", [
    ("[]", "holds a list, expected an object"),
    ("null", "holds null"),
    ("5", "holds a number"),
    ("", "is no JSON"),
    ("[" * 100_000, "is no JSON"),
    ('{"model_type": "qwen3"', "is no JSON"),
])
def test_a_config_that_is_no_object_is_one_line(folder, text, words):
    (folder / "config.json").write_text(text)
    assert f"config.json {words}" in refused(folder)


@pytest.mark.parametrize("fields, words", [
    ({"model_type": "nonesuch"}, "no model_type 'nonesuch'"),
    ({"model_type": None}, "no model_type None"),
    ({"model_type": ["x"]}, "no model_type"),
    ({"model_type": "t5"}, "no causal language model"),
    ({"model_type": "mamba"}, "recurrent layers"),
    ({"model_type": "gpt2"}, "weights are missing"),
    ({"hidden_size": 0}, "hidden_size is 0"),
    ({"hidden_size": -1}, "hidden_size is -1"),
    ({"hidden_size": 10 ** 12}, "hidden_size is 1000000000000"),
    ({"hidden_size": "32"}, "hidden_size is the text '32', expected a number"),
    ({"hidden_size": 32.5}, "hidden_size"),
    ({"num_hidden_layers": 10 ** 9}, "num_hidden_layers is 1000000000"),
    ({"num_hidden_layers": 3, "layer_types": None}, "weights are missing"),
    ({"num_hidden_layers": 1, "layer_types": None}, "more layers than config.json says"),
    ({"num_attention_heads": 0}, "num_attention_heads is 0"),
    ({"num_attention_heads": 6}, "has the shape"),
    ({"head_dim": 10 ** 12}, "head_dim"),
    ({"vocab_size": 20}, "has the shape (56, 32), and (20, 32) by config.json"),
    ({"dtype": "junk"}, "junk"),
    ({"hidden_act": "junk"}, "junk"),
    ({"rope_parameters": {"rope_type": "junk"}}, "junk"),
    ({"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}},
     "quantised (bitsandbytes)"),
    ({"quantization_config": 5}, "quantised"),
])
def test_a_config_that_cannot_be_is_one_line_that_says_why(folder, fields, words, capfd):
    change(folder, **fields)
    assert words in refused(folder)
    # no table of weights from transformers
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("fields", [
    {"hidden_size": "32"}, {"intermediate_size": [1]}, {"layer_types": ["junk"] * 2},
    {"num_key_value_heads": 0}, {"hidden_act": "junk"}, {"head_dim": 0}])
def test_a_config_that_raises_is_left_to_loading_where_room_is_counted(folder, fields):
    """train.py counts memory by the config before it loads: that ended in a traceback."""
    change(folder, **fields)
    cfg = Config(model=str(folder), device="cpu")
    assert room.sizes_of(cfg) is None
    refused(folder)


def test_an_adapter_is_no_model(folder):
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    assert "an adapter" in refused(folder)


@pytest.mark.parametrize("names", [
    "../../etc/passwd", "/etc/passwd", "other.bin", "other.safetensors", 5])
def test_an_index_names_files_of_this_folder_or_is_refused(folder, names):
    weights = folder / "model.safetensors"
    index = {"metadata": {}, "weight_map": dict.fromkeys(load_file(weights), names)}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    weights.unlink()
    assert str(names) in refused(folder)


def test_nobody_waits_at_a_pipe(folder):
    (folder / "config.json").unlink()
    os.mkfifo(folder / "config.json")
    assert "config.json is neither a file nor a folder" in refused(folder)


def test_weights_that_are_not_finite_are_named(folder):
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][3, 4] = float("nan")
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    line = refused(folder)
    assert "not finite" in line and "model.layers.1.mlp.up_proj.weight" in line


def test_settings_of_generate_that_cannot_be_saved_go(folder):
    path = folder / "generation_config.json"
    path.write_text('{"eos_token_id": 2, "do_sample": false, "temperature": 0.6, "top_p": 0.9}')
    model, tokenizer = load_model(str(folder))
    model.save_pretrained(folder / "again")
    tokenizer.save_pretrained(folder / "again")
    assert load_model(str(folder / "again"))[0].generation_config.eos_token_id == 2


# ---------------------------------------------------------------- code of their own

EVIL = "from pathlib import Path\nPath(__file__).with_name('ran').write_text('x')\n"
MAP = {"AutoConfig": "evil.Evil", "AutoModelForCausalLM": "evil.Evil"}


@pytest.mark.parametrize("fields, loads", [
    ({"model_type": "evil", "architectures": ["Evil"]}, False),
    # of a type that is known, with another class than the one that is
    ({"architectures": ["Evil"]}, False),
    # as Phi-3 on the hub: transformers has had the class since
    ({}, True),
])
def test_code_of_a_models_own_is_never_asked_about_and_never_run(
        folder, fields, loads, monkeypatch, capfd):
    change(folder, auto_map=MAP, **fields)
    (folder / "evil.py").write_text(EVIL)
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("it asked"))
    if loads:
        model, _ = load_model(str(folder))
        assert type(model).__name__ == "Qwen3ForCausalLM"
        assert "auto_map" in "".join(capfd.readouterr())
    else:
        assert "code of its own (auto_map) is never run" in refused(folder)
    assert not list(folder.rglob("ran"))


def test_a_tokenizers_own_code_is_not_run_either(folder, monkeypatch):
    change(folder, "tokenizer_config.json", tokenizer_class="Evil",
           auto_map={"AutoTokenizer": ["evil.Evil", "evil.Evil"]})
    (folder / "evil.py").write_text(EVIL)
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("it asked"))
    _, tokenizer = load_model(str(folder))
    assert tokenizer("w1").input_ids == fakes.make_tokenizer()("w1").input_ids
    assert not list(folder.rglob("ran"))


# ---------------------------------------------------------------- tokenizers

@pytest.mark.parametrize("name, text", [
    ("tokenizer_config.json", "[]"), ("tokenizer_config.json", "null"),
    ("tokenizer_config.json", "{"), ("tokenizer.json", "[]"), ("tokenizer.json", "{}"),
    ("generation_config.json", "[]")])
def test_a_tokenizers_file_that_is_no_object_is_one_line(folder, name, text):
    (folder / name).write_text(text)
    refused(folder)


def test_a_folder_without_a_tokenizer_is_one_line(folder):
    for path in folder.glob("*token*"):
        path.unlink()
    assert "tokenizer" in refused(folder)


def test_tokens_that_the_model_lacks_are_refused_and_a_filler_is_not(folder):
    tokenizer = fakes.make_tokenizer()
    tokenizer.add_special_tokens({"pad_token": "<filler>"})
    tokenizer.save_pretrained(folder)
    load_model(str(folder))
    tokenizer.add_tokens(["w99"])
    tokenizer.save_pretrained(folder)
    assert "'w99' is number 57, and there are 56 embeddings" in refused(folder)


def test_many_more_embeddings_than_tokens_are_said(folder, capfd):
    torch.manual_seed(0)
    change(folder, vocab_size=112)
    from transformers import AutoConfig
    AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder)).save_pretrained(folder)
    load_model(str(folder))
    assert "112 embeddings for the 56 tokens" in "".join(capfd.readouterr())


def test_the_end_of_a_turn_that_is_named_nowhere_is_a_stop(folder):
    """Special in tokenizer.json alone: every answer ran to the limit."""
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text())
    for name in ("additional_special_tokens", "extra_special_tokens"):
        config.pop(name, None)
    path.write_text(json.dumps(config))
    _, tokenizer = load_model(str(folder))
    assert END not in tokenizer.all_special_ids
    assert chat_stop_ids(tokenizer) == [END, EOS]


# ---------------------------------------------------------------- chat templates

def with_template(folder, text):
    (folder / "chat_template.jinja").write_text(text)
    return folder


@pytest.mark.parametrize("template, words", [
    ("{% if %}", "Expected an expression"),
    ("{{ raise_exception('Only for pets') }}", "Only for pets"),
    ("{{ nope.nope }}", "'nope' is undefined"),
    ("{{ 1 // 0 }}", "zero"),
    ("hello", "does not write what the user says"),
    ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "recursion"),
    ("{% include '/etc/passwd' %}", "no loader"),
])
def test_a_template_that_is_not_fit_is_refused_in_its_own_words(folder, template, words):
    line = refused(with_template(folder, template))
    assert "chat template" in line and words in line


@pytest.mark.parametrize("template", [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ cycler.__init__.__globals__.os.system('touch FILE') }}",
    "{{ self.__init__.__globals__ }}",
    "{{ messages|attr('__class__') }}",
    "{{ (messages|map(attribute='__class__')|list)[0].__mro__ }}",
    "{{ lipsum.__globals__['os'].popen('touch FILE').read() }}",
    "{{ raise_exception.__globals__['os'].system('touch FILE') }}",
    "{{ messages.append(1) }}",
])
def test_a_template_does_not_reach_the_interpreter(folder, template):
    ran = folder / "ran"
    refused(with_template(folder, template.replace("FILE", str(ran))))
    assert not ran.exists()


@pytest.mark.parametrize("template", [
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "{{ 9 ** 9 ** 9 }}",
    "{{ 'a' * 10000000000 }}",
    "{{ 'x'|center(9999999999) }}",
    "{{ '%9999999999d'|format(1) }}",
    "{% for i in range(10 ** 9) %}x{% endfor %}",
])
def test_a_template_that_never_ends_ends_by_a_limit(folder, template, monkeypatch):
    monkeypatch.setattr(chat, "SECONDS", 1)
    before = time.process_time()
    refused(with_template(folder, template))
    assert time.process_time() - before < 8
    # and nothing computes on behind whatever runs next
    while any(thread.name.endswith("(work)") for thread in threading.enumerate()):
        assert time.process_time() - before < 8
        time.sleep(.01)


def test_a_template_of_user_turns_alone_ends_answers_by_eos(folder):
    template = ("{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}"
                "{% endfor %}")
    _, tokenizer = load_model(str(with_template(folder, template)))
    assert chat_stop_ids(tokenizer) == [EOS]
    assert tokenizer.convert_ids_to_tokens(chat_ids(tokenizer, "w1 w2")) == ["w1", "w2"]


def test_a_template_that_wants_a_system_message_says_so_where_there_is_none(folder):
    template = ("{% if messages[0].role != 'system' %}{{ raise_exception('No system!') }}"
                "{% endif %}{% for m in messages %}{{ m.content }} {% endfor %}")
    _, tokenizer = load_model(str(with_template(folder, template)))
    assert chat_stop_ids(tokenizer) == [EOS]
    assert len(chat_ids(tokenizer, ("w1", "w2"))) == 2
    with pytest.raises(InputError, match="No system!"):
        chat_ids(tokenizer, "w2")
