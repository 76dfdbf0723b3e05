"""Loads a model and its tokenizer, and refuses at the start what would silently compute something
else.

Weights are read from safetensors only: a pickle can run code. A model's own code is never run.
"""
import copy
import importlib
import json
import logging
import math
import os
import re
from importlib.util import find_spec

import torch
import transformers
from jinja2 import TemplateError
from safetensors import SafetensorError, safe_open
from tqdm import tqdm
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.utils import cached_file

from data import InputError, Rollout
from engine import attention, hub, ranks, varlen
from engine.cache import Running
from engine.flat import Flat
from engine.logps import TokenLogps, tree_logps
from engine.packing import Rows, pack
from engine.prompts import messages

# Their progress bars and warnings of five retries; ours say what is loaded.
transformers.logging.disable_progress_bar()
logging.getLogger("huggingface_hub").setLevel(logging.ERROR)

# What loading a damaged folder raises, and what a forward pass of a model that is not ours does.
UNFIT = (AttributeError, IndexError, NotImplementedError, RuntimeError, TypeError, ValueError)
UNLOADABLE = (OSError, ValueError, KeyError, RuntimeError, SafetensorError)


# ---------------------------------------------------------------- from a folder or the hub

def load_model(path, to_be_cut=False):
    """A model folder or hub id -> (model in fp32 in host memory, tokenizer). InputError if it
    cannot be loaded whole.

    to_be_cut: in bf16 where its files are. Then its weights are views of the files, whose pages all
    ranks of a machine share, and shard.split casts them a layer at a time: one copy of 2 bytes a
    parameter on a machine, where eight ranks would have eight of 4.
    """
    if not os.path.isdir(path):
        hub.look()
    try:
        tokenizer = AutoTokenizer.from_pretrained(path)
        dtype = torch.bfloat16 if to_be_cut and is_stored_in_bf16(path) else torch.float32
        model, info = AutoModelForCausalLM.from_pretrained(
            path, dtype=dtype, use_safetensors=True, attn_implementation="sdpa",
            output_loading_info=True)
    except UNLOADABLE as error:
        why = " ".join(str(error).split())[:200]
        raise InputError(f"model {path}: cannot be loaded as a Hugging Face model folder or hub id "
                         f"({why})")
    missing = sorted(info["missing_keys"])
    # transformers would fill them with noise
    if missing:
        raise InputError(f"model {path}: {len(missing)} weights are missing, {missing[0]} among "
                         "them")
    # eval: dropout would make log-probs differ from the sampler's
    return model.eval(), tokenizer


def is_stored_in_bf16(path):
    """By its files, not by what its config says: rounding fp32 weights would be another model."""
    index = cached_file(path, "model.safetensors.index.json",
                        _raise_exceptions_for_missing_entries=False)
    names = ["model.safetensors"]
    if index:
        with open(index, encoding="utf-8") as f:
            names = sorted(set(json.load(f)["weight_map"].values()))
    kinds = set()
    for name in names:
        with safe_open(cached_file(path, name), "pt") as f:
            kinds |= {f.get_slice(key).get_dtype() for key in f.keys()}
    return kinds == {"BF16"}


# ---------------------------------------------------------------- chat format

def chat_text(tokenizer, prompt):
    """A user message, or (system message, user message) -> the text the model continues.

    By the tokenizer's own chat template, or in a plain frame where a base tokenizer has none. Where
    there is no system role, its message begins the user's.
    """
    turns = messages(prompt)
    together = "\n\n".join(turn["content"] for turn in turns)
    if not tokenizer.chat_template:
        return f"{together}\n\nAnswer:\n"
    if len(turns) > 1 and not takes_system(tokenizer):
        turns = messages(together)
    return rendered(tokenizer, turns)


def rendered(tokenizer, turns):
    return tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)


def takes_system(tokenizer):
    """Does the chat template write a system message? Some refuse one, some pass over it."""
    try:
        return "INFUSER" in rendered(tokenizer, messages(("INFUSER", "x")))
    except TemplateError:
        return False


def chat_ids(tokenizer, prompt):
    """What chat_text takes -> prompt token ids.

    The template writes its own special tokens; only the plain frame lets the tokenizer add them.
    What stands in the prompt is text: see text_ids.
    """
    special = not tokenizer.chat_template
    names = control_names(tokenizer)
    found = []

    def hidden(text):
        found.extend(names.findall(text))
        return names.sub(HIDDEN, text)

    turns = tuple(hidden(turn["content"]) for turn in messages(prompt))
    first, *rest = chat_text(tokenizer, turns).split(HIDDEN)
    # a template that writes a message twice, or only in part
    if len(rest) != len(found):
        raise InputError("the chat template does not write each message once, and one of them "
                         f"holds the name of a control token, {found[0]!r}")
    ids = tokenizer(first, add_special_tokens=special).input_ids
    for name, piece in zip(found, rest):
        ids = ids + spelled(tokenizer, name) + encoded(tokenizer, piece)
    return ids


def text_ids(tokenizer, text):
    """A text -> token ids, none of them a control token.

    A document that says <|im_end|> would otherwise end the user's turn and forge the model's.
    """
    names = control_names(tokenizer)
    first, *rest = names.split(text)
    ids = encoded(tokenizer, first)
    for name, piece in zip(names.findall(text), rest):
        ids = ids + spelled(tokenizer, name) + encoded(tokenizer, piece)
    return ids


# Stands for the name of a control token while a template is rendered.
HIDDEN = "\ue000\ue001"


def control_names(tokenizer):
    """The pattern of the names of special tokens, and of <think> and [INST] where they are tokens.

    The embedded world's lines of prompts are tokens too, and no control tokens.
    """
    names = {token.content for token in tokenizer.added_tokens_decoder.values()
             if token.special or re.fullmatch(r"<[^<>\s]+>|\[/?[A-Z_]+\]", token.content)}
    names |= set(tokenizer.all_special_tokens)
    # of two that begin alike, the longer
    listed = sorted([name for name in names if len(name) > 1], key=len, reverse=True)
    return re.compile("|".join(map(re.escape, listed)) or r"(?!)")


def encoded(tokenizer, text):
    return tokenizer(text, add_special_tokens=False).input_ids if text else []


def spelled(tokenizer, name):
    """The name of a control token -> ids of the text: its first sign and the rest apart."""
    return encoded(tokenizer, name[0]) + encoded(tokenizer, name[1:])


def chat_stop_ids(tokenizer):
    """The tokens that end a response, first the one that ends a turn in the chat template.

    Qwen3-Base names <|endoftext|> as EOS but its template ends turns with <|im_end|>: a sampler
    that knows only one of them runs on to the length limit.
    """
    stops = [tokenizer.eos_token_id]
    if tokenizer.chat_template:
        marker = "INFUSER"
        messages = [{"role": "user", "content": "x"}, {"role": "assistant", "content": marker}]
        turn = tokenizer.apply_chat_template(messages, tokenize=False)
        end = turn[turn.rindex(marker) + len(marker):]
        after = tokenizer(end, add_special_tokens=False).input_ids
        stops = [i for i in after if i in tokenizer.all_special_ids][:1] + stops
    return list(dict.fromkeys(i for i in stops if i is not None))


def stop_ids_of(model, tokenizer):
    """chat_stop_ids, and what the model's generation config adds."""
    stops = chat_stop_ids(tokenizer)
    extra = model.generation_config.eos_token_id
    extra = extra if isinstance(extra, list) else [extra]
    return stops + [i for i in extra if i is not None and i not in stops]


# ---------------------------------------------------------------- where it lives

def device_of(cfg):
    """cpu, or this rank's GPU."""
    if cfg.device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: torch sees no GPU; leave it out, or install the CUDA "
                         "build of torch")
    if cfg.device == "cpu" or (cfg.device == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def sampler_of(cfg):
    """plain, or the guest that cfg.sampler names; auto: vLLM for a run on CUDA, where it can be
    imported and both roles begin with one model.
    """
    if cfg.sampler != "auto":
        return cfg.sampler
    one_model = cfg.generator_anchor == cfg.model
    if device_of(cfg).type != "cuda" or not one_model or find_spec("vllm") is None:
        return "plain"
    try:
        importlib.import_module("engine.vllm_sampler").require(cfg)
    except InputError as error:
        if ranks.is_main():
            tqdm.write(f"not sampling by vLLM: {error}")
        return "plain"
    return "vllm"


def layers_of(model):
    return [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]


def layer_weights(model):
    """How many parameters are matrices of the layers, for counting FLOPs."""
    n = 0
    for name, p in model.named_parameters():
        if p.dim() == 2 and "embed" not in name and "lm_head" not in name:
            n += p.numel()
    return n


def copy_with(model, weights, trains=False):
    """A copy of a model around other tensors, in the order of its parameters.

    With `trains` those require gradients that do in the model. model.to() would round the rotary
    frequencies too.
    """
    known = {}
    for p, w in zip(model.parameters(), weights):
        known[id(p)] = torch.nn.Parameter(w, requires_grad=trains and p.requires_grad)
    return copy.deepcopy(model, known)


def shortened(model):
    """A copy in fp32 of a model's first layers, so many that every kind is among them.

    What is checked before a model is cut does not depend on how many there are, and eight ranks
    have no room for eight whole copies.
    """
    layers, config = layers_of(model), model.config.get_text_config()
    kinds = getattr(config, "layer_types", None) or ["full_attention"]
    n = max(2, *(kinds.index(kind) + 1 for kind in kinds))
    left_out = set()
    for layer in layers[n:]:
        left_out |= {id(p) for p in layer.parameters()}
    weights = []
    for p in model.parameters():
        weights.append(p.detach() if id(p) in left_out else p.detach().float())

    short = copy_with(model, weights)
    for module in short.modules():
        if isinstance(module, torch.nn.ModuleList) and len(module) == len(layers):
            del module[n:]
    short.config.get_text_config().num_hidden_layers = min(n, len(layers))
    return short


def on_trial(policy):
    """The role as it is tried before it trains: in fp32, with the weights where they are before
    they are cut, and without most layers where they are in bf16.
    """
    plain = copy.copy(policy)
    plain.bf16, plain.sharded = False, False
    if policy.model.dtype != torch.float32:
        plain.model = shortened(policy.model)
        plain.net = TokenLogps(plain.model)
        plain.recomputed = layers_of(plain.model) if policy.recomputed else []
    plain.device = plain.model.device
    return plain


# ---------------------------------------------------------------- what is refused

def check_model(policy, cfg):
    """Refuse what would silently compute something else, or stop in the middle of a run."""
    config = policy.model.config.get_text_config()
    name = f"--model {config.model_type}"
    kinds = set(getattr(config, "layer_types", None) or ())
    odd = sorted(kinds - {"full_attention", "sliding_attention"})
    # linear layers carry state from one packed answer into the next, whatever the mask says
    if odd:
        raise InputError(f"{name}: layers of kind {', '.join(odd)} cannot be packed; not supported")
    if not policy.stop_ids:
        raise InputError(f"{name}: neither its tokenizer nor its generation config names a token "
                         "that ends a response")

    hint = ""
    if policy.recomputed:
        hint = " (dropout, which --grad_checkpoint turns on in its layers?)"
    try:
        fine = agrees(policy, cfg)
        why = f"with trees and our cache its log-probs are not its own{hint}"
    except UNFIT as error:
        fine = False
        reason = " ".join(str(error).split())[:120]
        why = f"its layers do not take trees and our cache ({reason})"
    if not fine:
        raise InputError(f"{name}: {why}; not supported")


@torch.no_grad()
def agrees(policy, cfg):
    """Are the log-probs of a tree, and of a sampling step behind a padded prompt, those of the
    model's own logits? Finds out, too, whether the model takes the flat cache: policy.flat.

    That tries masks, positions and head, on a few tokens.
    """
    plain = on_trial(policy)
    model, first = plain.model, policy.stop_ids[0]

    def tensor(numbers):
        return torch.tensor(numbers, device=plain.device)

    def own(ids):
        logits = model(tensor([ids]), use_cache=False).logits[0]
        return logits.float().log_softmax(-1)                                       # (L, V)

    # a common beginning, then a branch
    prompt, answers = [first, 0], [[1, 0, 2], [1, 2, 0]]
    tree, = pack([Rollout(prompt, answer, [], True, "") for answer in answers], 0, 2)
    in_tree = tree_logps(plain, [tree], 1.0, cfg)
    alone = [own(prompt + answer)[1:-1].gather(1, tensor([answer]).T)[:, 0] for answer in answers]

    expected = own([first, 0, 1, 2])[-1], own([first, 2])[-1]

    def sampled(running):
        running.join([[first, 0, 1], [first]], [[(0, 0)], [(1, 0)]])
        running.step(tensor([2, 2]))
        return model.get_output_embeddings()(running.hidden).float().log_softmax(-1)    # (2, V)

    def same(found, right):
        return torch.allclose(torch.cat(list(found)), torch.cat(list(right)), atol=1e-3)

    # a model that does not take the flat cache is sampled from with padded rows
    try:
        rows = Flat(model, plain.device, attention.varlen, math.inf)
        policy.flat = attention.can_attend(model) and same(sampled(rows), expected)
    except UNFIT:
        policy.flat = False
    padded = sampled(Running(model, plain.device))
    return same([in_tree, *padded], [*alone, *expected])


@torch.no_grad()
def rows_agree(policy, cfg):
    """Are log-probs the same, in fp32, of answers that lie end to end and of answers side by side?

    The model's attention takes such rows from here on. A model that cannot is padded, which costs
    time and nothing else; where --end_to_end true asked for it, InputError.
    """
    before, first = policy.model.config._attn_implementation, policy.stop_ids[0]
    answers = [Rollout([first, 0], answer, [], True, "") for answer in ([1, 0, 2, 1], [2, 0])]
    trees = pack(answers, 0, 1)
    try:
        fine = varlen.accept(policy.model)
        plain = on_trial(policy)
        if fine:
            found = tree_logps(plain, Rows(trees), 1.0, cfg)
            fine = torch.allclose(found, tree_logps(plain, trees, 1.0, cfg), atol=1e-3)
    except UNFIT:
        fine = False
    if not fine:
        policy.model.set_attn_implementation(before)
        if cfg.end_to_end == "true":
            name = policy.model.config.get_text_config().model_type
            raise InputError(f"--end_to_end true: {name} does not take rows that lie end to end")
    return fine
