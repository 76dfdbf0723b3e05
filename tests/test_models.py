"""Models and tokenizers: chat format, folders that are broken, models that are refused."""
import ctypes
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM, Gemma2Config, GPT2Config, GraniteConfig, LlamaConfig, MistralConfig,
    Olmo3Config, Olmo3ForCausalLM, Phi3Config, Qwen3Config, Qwen3ForCausalLM, RecurrentGemmaConfig)

import evaluate
import fakes
import warmup
from config import ROOT, Config
from data import InputError
from engine import model_folder, models, trial
from engine.chat import chat_ids, chat_stop_ids, chat_text
from engine.models import load_model
from engine.trial import check_model
from fakes import END, EOS, V
from policy import Policy



# ---------------------------------------------------------------- model and tokenizer

def test_a_response_ends_with_the_end_of_a_turn_or_with_eos(make_policy):
    policy, _ = make_policy()
    # a warm start teaches the first one
    assert chat_stop_ids(policy.tokenizer) == [END, EOS]
    assert policy.stop_ids[:2] == [END, EOS] and len(set(policy.stop_ids)) == len(policy.stop_ids)
    assert chat_stop_ids(fakes.make_tokenizer(template=None)) == [EOS]


def test_prompts_go_through_the_chat_template_or_a_plain_frame():
    tokenizer = fakes.make_tokenizer()
    assert chat_text(tokenizer, "w1 w2") == "<|user|> w1 w2 <|end|> <|assistant|> "
    assert tokenizer.convert_ids_to_tokens(chat_ids(tokenizer, "w1 w2")) == [
        "<|user|>",
        "w1",
        "w2",
        "<|end|>",
        "<|assistant|>",
    ]
    plain = fakes.make_tokenizer(template=None)
    assert chat_text(plain, "w1 w2") == "w1 w2\n\nAnswer:\n"
    assert plain.convert_ids_to_tokens(chat_ids(plain, "w1 w2"))[:2] == ["w1", "w2"]


def test_a_model_is_never_read_from_a_pickle(tmp_path):
    model = fakes.make_model()
    model.config.save_pretrained(tmp_path)
    fakes.make_tokenizer().save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError) as caught:
        load_model(str(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "damage", ["empty folder", "broken config", "cut weights", "other sizes", "missing weights"]
)
def test_a_broken_model_folder_is_one_clear_line(tmp_path, damage):
    if damage != "empty folder":
        fakes.make_model().save_pretrained(tmp_path)
        fakes.make_tokenizer().save_pretrained(tmp_path)
    config, tensors = tmp_path / "config.json", tmp_path / "model.safetensors"
    if damage == "broken config":
        config.write_text(config.read_text()[:-20])
    elif damage == "cut weights":
        tensors.write_bytes(tensors.read_bytes()[:-1000])
    elif damage == "other sizes":
        config.write_text(
            config.read_text().replace('"intermediate_size": 48', '"intermediate_size": 64')
        )
    elif damage == "missing weights":
        config.write_text(
            config.read_text()
            .replace('"num_hidden_layers": 2', '"num_hidden_layers": 3')
            .replace('"layer_types": [', '"layer_types": [\n "full_attention",')
        )
    with pytest.raises(InputError) as caught:
        load_model(str(tmp_path))
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)


def test_a_model_that_scales_its_logits_is_refused(make_policy, tmp_path):
    from transformers import CohereConfig, CohereForCausalLM

    config = CohereConfig(
        vocab_size=V,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=4,
        initializer_range=0.2,
        logit_scale=0.5,
        eos_token_id=EOS,
        bos_token_id=None,
        pad_token_id=0,
    )
    CohereForCausalLM(config).save_pretrained(tmp_path / "cohere")
    fakes.make_tokenizer().save_pretrained(tmp_path / "cohere")
    with pytest.raises(InputError, match="not supported"):
        make_policy("cohere")


@pytest.mark.parametrize("grad_checkpoint", [False, True])
def test_dropout_that_recomputation_would_turn_on_is_refused(
    make_policy, tmp_path, grad_checkpoint
):
    from transformers import OPTConfig, OPTForCausalLM

    config = OPTConfig(
        vocab_size=V,
        hidden_size=32,
        ffn_dim=48,
        num_hidden_layers=1,
        num_attention_heads=4,
        word_embed_proj_dim=32,
        max_position_embeddings=64,
        init_std=0.2,
        eos_token_id=EOS,
        bos_token_id=EOS,
        pad_token_id=0,
    )
    OPTForCausalLM(config).save_pretrained(tmp_path / "opt")
    fakes.make_tokenizer().save_pretrained(tmp_path / "opt")
    with pytest.raises(InputError, match="dropout") if grad_checkpoint else nullcontext():
        make_policy("opt", grad_checkpoint=grad_checkpoint, max_prompt_tokens=40)


# ---------------------------------------------------------------- what the trial names

SIZES = dict(
    vocab_size=V, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, initializer_range=0.2, eos_token_id=EOS, pad_token_id=0,
    bos_token_id=None)


def saved(folder, name, config):
    """A random model of this config, in a folder of this name."""
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder / name)
    fakes.make_tokenizer().save_pretrained(folder / name)
    return name


def granite():
    return GraniteConfig(**SIZES, logits_scaling=4.0)


def gemma2():
    return Gemma2Config(**SIZES, head_dim=8, final_logit_softcapping=5.0)


def recurrent_gemma():
    return RecurrentGemmaConfig(
        **SIZES, block_types=["recurrent", "attention"], lru_width=32, attention_window_size=64)


def longrope():
    """As Phi-3 beyond its original length; here 40."""
    factors = [1.0] * 4
    rope = dict(rope_type="longrope", rope_theta=10000.0, short_factor=factors,
                long_factor=[3.0] * 4, original_max_position_embeddings=40)
    return Phi3Config(**SIZES, max_position_embeddings=400, rope_parameters=rope,
                      original_max_position_embeddings=40)


def dynamic():
    rope = dict(rope_type="dynamic", rope_theta=10000.0, factor=4.0)
    return LlamaConfig(**SIZES, max_position_embeddings=40, rope_parameters=rope)


def gpt2():
    return GPT2Config(
        vocab_size=V, n_embd=32, n_layer=2, n_head=4, n_positions=160, eos_token_id=EOS,
        bos_token_id=EOS)


@pytest.mark.parametrize("make, words", [
    (granite, "it scales its logits, by 0.25"),
    (gemma2, r"it caps its logits, at 5 \(final_logit_softcapping\)"),
    (recurrent_gemma, "recurrent layers"),
    (longrope, r"rotary frequencies depend on length \(longrope from 40 on\)"),
    (dynamic, r"rotary frequencies depend on length \(dynamic from 40 on\)"),
    (gpt2, "up to 240 tokens exceed its 160 positions"),
])
def test_what_differs_is_named_before_the_run(make_policy, tmp_path, make, words):
    name = saved(tmp_path, make.__name__, make())
    with pytest.raises(InputError, match=words) as caught:
        make_policy(name, max_prompt_tokens=40, max_response_tokens=200)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("make", [longrope, dynamic, gpt2])
def test_a_run_that_stays_below_the_length_is_fine(make_policy, tmp_path, make):
    policy, _ = make_policy(
        saved(tmp_path, make.__name__, make()), max_prompt_tokens=28, max_response_tokens=12)
    assert policy.stop_ids


def test_a_window_that_only_the_runs_lengths_pass_is_tried(make_policy, tmp_path):
    """A row as long as the run may be: 8 tokens know nothing of a window of 64."""
    name = saved(tmp_path, "mistral", MistralConfig(**SIZES, sliding_window=64))
    policy, cfg = make_policy(name, max_prompt_tokens=80)
    tried = trial.Trial(trial.on_trial(policy), cfg)
    assert tried.long(92) is None

    # its own masks slide, and the config hides it from ours
    policy.model.config.layer_types = ["full_attention"] * 2
    assert tried.short() is None
    assert "in rows of up to 92 tokens" in tried.long(92)


@pytest.mark.parametrize("word", ["train", "warmup", "evaluate"])
def test_warmup_and_evaluate_refuse_what_training_refuses(tmp_path, word):
    """warmup taught Granite another loss, and training refused the result."""
    name = str(tmp_path / saved(tmp_path, "granite", granite()))
    with pytest.raises(InputError, match="scales its logits"):
        if word == "warmup":
            warmup.load(SimpleNamespace(model=name, lr=1e-3, prompts="plain"), [])
        elif word == "evaluate":
            evaluate.main([name, "--questions", str(ROOT / "toy/dev.json"), "--limit", "1"])
        else:
            Policy("solver", name, 0.0, Config(device="cpu"))


def test_a_demonstration_longer_than_the_models_positions_is_refused(tmp_path):
    name = str(tmp_path / saved(tmp_path, "gpt2", gpt2()))
    demo = {"content": "w1 " * 200, "question_text": "w2", "choices": ["w3", "w4"],
            "ground_truth": "w3"}
    args = SimpleNamespace(model=name, lr=1e-3, prompts="plain")
    with pytest.raises(InputError, match="exceed its 160 positions"):
        warmup.load(args, [demo])
    assert warmup.load(args, [demo | {"content": "w1"}])


# ---------------------------------------------------------------- what was refused before


def test_a_model_without_positions_is_refused_at_the_start(make_policy, tmp_path):
    from transformers import FalconConfig, FalconForCausalLM

    config = FalconConfig(
        vocab_size=V,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        alibi=True,
        eos_token_id=EOS,
        bos_token_id=EOS,
    )
    FalconForCausalLM(config).save_pretrained(tmp_path / "falcon")
    fakes.make_tokenizer().save_pretrained(tmp_path / "falcon")
    with pytest.raises(InputError, match="not supported"):
        make_policy("falcon")


def test_layers_that_carry_state_between_packed_answers_are_refused(make_policy):
    policy, cfg = make_policy("tied")
    policy.model.config.layer_types = ["linear_attention", "full_attention"]
    with pytest.raises(InputError, match="linear_attention"):
        check_model(policy, cfg)


# ---------------------------------------------------------------- loaded to be cut

def test_weights_stored_in_bf16_are_loaded_so_to_be_cut_and_lose_nothing(make_policy, tmp_path):
    make_policy("stored")
    whole, _ = load_model(str(tmp_path / "stored"))
    stored, _ = load_model(str(tmp_path / "stored"), to_be_cut=True)
    assert {p.dtype for p in whole.parameters()} == {torch.float32}
    assert {p.dtype for p in stored.parameters()} == {torch.bfloat16}
    assert all(torch.equal(a, b.float()) for a, b in zip(whole.parameters(), stored.parameters()))
    # rotary frequencies are never rounded
    assert all(torch.equal(a, b) for a, b in zip(whole.buffers(), stored.buffers()))


@pytest.mark.parametrize("says", ["bfloat16", "float32"])
def test_files_in_fp32_are_never_rounded_whatever_the_config_says(make_policy, tmp_path, says):
    make_policy("tied")
    config = tmp_path / "tied" / "config.json"
    config.write_text(config.read_text().replace('"float32"', f'"{says}"'))
    assert says in config.read_text()
    model, _ = load_model(str(tmp_path / "tied"), to_be_cut=True)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    expected = fakes.make_model("tied").parameters()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), expected))


def test_a_model_of_many_files_is_asked_for_all_of_them(make_policy, tmp_path):
    model = fakes.make_model("untied").bfloat16()
    model.save_pretrained(tmp_path / "many", max_shard_size="8KB")
    assert len(list((tmp_path / "many").glob("*.safetensors"))) > 2
    assert model_folder.is_stored_in_bf16(str(tmp_path / "many"))
    last = sorted((tmp_path / "many").glob("*.safetensors"))[-1]
    save_file({name: t.float() for name, t in load_file(last).items()}, last)
    assert not model_folder.is_stored_in_bf16(str(tmp_path / "many"))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks Linux for memory")
def test_ranks_share_the_pages_of_a_model_that_is_loaded_as_stored(tmp_path):
    """In fp32 they cost each process twice their size on disk, as stored next to nothing."""
    config = Qwen3Config(
        vocab_size=5000, hidden_size=512, intermediate_size=1024, num_hidden_layers=4,
        num_attention_heads=4, num_key_value_heads=2, head_dim=128, bos_token_id=None)
    Qwen3ForCausalLM(config).bfloat16().save_pretrained(tmp_path)
    fakes.make_tokenizer().save_pretrained(tmp_path)
    load_model(str(tmp_path), to_be_cut=True)
    own = []
    for to_be_cut in (True, False):
        before = private_memory()
        model, _ = load_model(str(tmp_path), to_be_cut)
        own.append((private_memory() - before) / (2 * sum(p.numel() for p in model.parameters())))
        del model
    as_stored, in_fp32 = own
    assert as_stored < 0.5 and in_fp32 > 1.5


def private_memory():
    """Bytes that belong to this process alone and are no file's."""
    # what earlier tests left free would be taken again and not count
    ctypes.CDLL(None).malloc_trim(0)
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


@pytest.mark.parametrize("kind", ["stored", "window", "windows"])
def test_the_shortened_model_is_the_models_first_layers_in_fp32(make_policy, kind):
    policy, _ = make_policy(kind)
    short = trial.shortened(policy.model.bfloat16())
    assert {p.dtype for p in short.parameters()} == {torch.float32}
    ids = torch.tensor([[7, 8, 9, 10, 11, 12, 13]])
    exact = policy.model.float()
    # both have two layers, of which none may go
    assert torch.equal(short(ids).logits, exact(ids).logits)


def test_a_longer_model_is_shortened_to_as_many_layers_as_have_all_kinds():
    kinds = ["sliding_attention"] * 3 + ["full_attention"] + ["sliding_attention"] * 2
    config = Olmo3Config(
        vocab_size=V, hidden_size=32, intermediate_size=48, num_hidden_layers=6,
        num_attention_heads=4, num_key_value_heads=2, sliding_window=4, layer_types=kinds,
        bos_token_id=None, eos_token_id=EOS, pad_token_id=0)
    model = Olmo3ForCausalLM(config).eval().bfloat16()
    short = trial.shortened(model)
    assert len(models.layers_of(short)) == 4 and len(models.layers_of(model)) == 6
    assert short(torch.tensor([[1, 2, 3]])).logits.isfinite().all()
    assert model.config.num_hidden_layers == 6
