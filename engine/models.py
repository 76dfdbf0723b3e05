"""Loads a model and its tokenizer; says on which device and by which sampler they run; copies a
model around other weights (copy_with).

Weights are read from safetensors only: a pickle can run code. A model's own code is never run, and
never asked about. What its folder may hold: engine/model_folder.py. Whether it computes what is
trained here: engine/trial.py.
"""
import copy
import functools
import importlib
import logging
import os
import re
from importlib.util import find_spec

import torch
import transformers
from tqdm import tqdm
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from transformers.modeling_layers import GradientCheckpointingLayer

from data import InputError
from engine import hub, model_folder, ranks
from engine.chat import check_template, encoded
from engine.speech import line_of

# Their progress bars, tables of weights and warnings of five retries; ours say what is loaded.
transformers.logging.disable_progress_bar()
transformers.logging.set_verbosity(logging.CRITICAL)
logging.getLogger("huggingface_hub").setLevel(logging.ERROR)

# So many more embeddings than tokens are no filling up to a round number.
MANY = 1.25


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
        model_folder.look(path, whole=True)
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
        check_template(tokenizer)
        dtype = torch.bfloat16 if to_be_cut and model_folder.is_stored_in_bf16(path) else (
            torch.float32)
        # sizes that differ are ours to tell
        model, info = AutoModelForCausalLM.from_pretrained(
            path, dtype=dtype, use_safetensors=True, attn_implementation="sdpa",
            output_loading_info=True, ignore_mismatched_sizes=True, trust_remote_code=False)
        if getattr(model.config, "auto_map", None):
            note(f"note: model {path}: its own code (auto_map) is not run; {type(model).__name__} "
                 "of transformers computes it")
        check_weights(model, info)
        check_vocabulary(model, tokenizer)
        mend_generation_config(model)
    except InputError as error:
        raise InputError(f"model {path}: {error}")
    except MemoryError:
        raise
    except Exception as error:
        # a folder that nobody here chose: whatever it makes transformers raise is its fault
        if isinstance(error, OSError) and error.errno is not None and line_of(error):
            raise
        why = " ".join(str(error).split())[:200] or type(error).__name__
        if "scaled_dot_product_attention" in why:
            raise InputError(f"model {path}: its layers cannot use the attention that is trained "
                             "with here (torch's scaled_dot_product_attention)")
        raise InputError(f"model {path}: cannot be loaded as a Hugging Face model folder or hub id "
                         f"({why})")
    # eval: dropout would make log-probs differ from the sampler's
    return model.eval(), tokenizer


def check_weights(model, info):
    """All weights are there, none is left over that a layer of this kind would have, all finite."""
    for name, in_files, in_model in sorted(info["mismatched_keys"]):
        raise InputError(f"{name} has the shape {tuple(in_files)}, and {tuple(in_model)} by "
                         "config.json")
    missing = sorted(info["missing_keys"])
    # transformers would fill them with noise
    if missing:
        raise InputError(f"{len(missing)} weights are missing, {missing[0]} among them")

    # what other models hold beside this one is no fault; a layer that the config leaves out is
    kinds = {unnumbered(name) for name, _ in model.named_parameters()}
    layers = sorted(name for name in info["unexpected_keys"] if unnumbered(name) in kinds)
    if layers:
        raise InputError(f"its files hold more layers than config.json says, {layers[0]} among "
                         "their weights")

    for name, p in model.named_parameters():
        # a sum may overflow
        if not p.sum().isfinite() and not p.isfinite().all():
            raise InputError(f"its weights are not finite: {name} holds NaN or infinity")


def mend_generation_config(model):
    """Settings of generate() that contradict each other go: a model with them cannot be saved."""
    before = model.generation_config
    try:
        before.validate(strict=True)
    except ValueError:
        ids = {name: getattr(before, name)
               for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
        model.generation_config = GenerationConfig(**ids)


def unnumbered(name):
    return re.sub(r"\.\d+\.", ".#.", name)


def check_vocabulary(model, tokenizer):
    """The tokenizer spells, and no token of its is one that the model lacks."""
    if not encoded(tokenizer, "A question."):
        raise InputError("its tokenizer finds no token in a text; are its files there "
                         "(tokenizer.json)?")
    rows = model.get_input_embeddings().weight.shape[0]
    # a filler is never read
    beyond = [(i, token) for token, i in tokenizer.get_vocab().items()
              if i >= rows and i != tokenizer.pad_token_id]
    if beyond:
        last, token = max(beyond)
        raise InputError(f"its tokenizer has tokens that the model lacks: {token!r} is number "
                         f"{last}, and there are {rows} embeddings")
    # up to a round number is usual
    if rows > MANY * len(tokenizer):
        note(f"note: model {model.name_or_path}: {rows} embeddings for the {len(tokenizer)} tokens "
             "of its tokenizer; is it another model's?")


@functools.cache
def note(line):
    """Said once, by one rank."""
    if ranks.is_main():
        tqdm.write(line)


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
    """The decoder layers, in order."""
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
