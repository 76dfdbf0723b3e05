"""Models and tokenizers: chat format, folders that are broken, models that are refused."""
from contextlib import nullcontext

import pytest
import torch

import fakes
from data import InputError
from engine.models import chat_ids, chat_stop_ids, chat_text, check_model, load_model
from fakes import END, EOS, V



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
        make_policy("opt", grad_checkpoint=grad_checkpoint)


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
