"""Looks at a model's small files before anything is built from them: one line for what cannot be
trained here, and no code of theirs.

Only files are read. What a config says must be possible with the weights that lie beside it: a
model of a billion layers would be built before anyone misses its weights.

    config.json                     an object, of a type that transformers ships
    tokenizer_config.json and such  objects
    adapter_config.json             an adapter: to be merged into its model first
    model.safetensors.index.json    names of files in this folder
"""
import json
import math
import os
import re

from safetensors import SafetensorError, safe_open
from transformers import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.utils import cached_file

from data import InputError

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
OBJECTS = ("generation_config.json", "tokenizer_config.json", "tokenizer.json",
           "special_tokens_map.json", "added_tokens.json")
# Fields that say how large something is that is built, or how many of it.
SIZES = re.compile(r"(^|_)(size|dim|rank|inner|d_\w+|n_(embd|layers?|heads?)|num_\w*(layers|heads|"
                   r"experts|blocks)|\w*_(layers|heads))$")
RECURRENT = re.compile(r"mamba|rwkv|xlstm|recurrent")
MOST_LAYERS = 10_000
NEEDED = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads")
NO_SIZES = re.compile(r"window|chunk|pad|beam|top_k|ngram|_every|sparse")


def require(path, whole=True):
    """InputError for what cannot be loaded or trained. whole: are its weights looked at, too?"""
    try:
        look(path, whole)
    except InputError as error:
        raise InputError(f"model {path}: {error}")


def look(path, whole):
    """InputError, without the model's name, for the first thing wrong. whole: its weights, too."""
    if os.path.isdir(path):
        refuse_pipes(path)
    else:
        # of a hub id that nobody knows, or cannot be reached, the client has the words
        cached_file(path, "config.json")
    if place(path, "adapter_config.json"):
        raise InputError("an adapter (adapter_config.json), and not a model; merge it into its "
                         "model first (peft: merge_and_unload)")
    config = read_object(path, "config.json")
    if config is None:
        raise InputError("there is no config.json")
    for name in OBJECTS:
        read_object(path, name)
    check_kind(config)
    layers = config.get("num_hidden_layers")
    if isinstance(layers, int) and layers > MOST_LAYERS:
        raise InputError(f"config.json: num_hidden_layers is {layers}")
    if whole:
        check_sizes(config, weights(path))


def refuse_pipes(path):
    """Whoever opens a pipe waits for somebody at its other end."""
    for entry in os.scandir(path):
        if os.path.exists(entry.path) and not (entry.is_file() or entry.is_dir()):
            raise InputError(f"{entry.name} is neither a file nor a folder")


def place(path, name):
    """A file of a model folder or hub id -> where it lies, or None."""
    if os.path.isdir(path):
        full = os.path.join(path, name)
        return full if os.path.isfile(full) else None
    return cached_file(path, name, _raise_exceptions_for_missing_entries=False,
                       _raise_exceptions_for_connection_errors=False)


def read_object(path, name):
    """-> the object in a JSON file, None where there is no such file."""
    full = place(path, name)
    if full is None:
        return None
    try:
        with open(full, encoding="utf-8") as f:
            found = json.load(f)
    except OSError as error:
        raise InputError(f"{name} cannot be read ({error.strerror})")
    except (ValueError, RecursionError) as error:
        raise InputError(f"{name} is no JSON ({' '.join(str(error).split())[:80]})")
    if not isinstance(found, dict):
        what = {list: "a list", str: "a text", type(None): "null"}.get(type(found), "a number")
        raise InputError(f"{name} holds {what}, expected an object")
    return found


# ---------------------------------------------------------------- what it says it is

def check_kind(config):
    """A causal language model that transformers ships, whose weights are numbers."""
    for name in ("quantization_config", "compression_config"):
        if config.get(name):
            how = config[name].get("quant_method") if isinstance(config[name], dict) else None
            raise InputError(f"quantised ({how or name}), so it cannot be trained here; take the "
                             "model it was made from")
    kind, named = config.get("model_type"), config.get("architectures")
    named = named if isinstance(named, list) else []
    own_code = bool(config.get("auto_map"))
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
        more = "; code of its own (auto_map) is never run here" if own_code else ""
        raise InputError(f"transformers has no model_type {kind!r}{more}")
    if kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise InputError(f"model_type {kind!r} is no causal language model of transformers")
    if RECURRENT.search(kind):
        raise InputError(f"recurrent layers ({kind}), which carry state from one packed answer "
                         "into the next; not supported")
    # with a class of transformers it can be loaded without that code
    shipped = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[kind]
    shipped = [shipped] if isinstance(shipped, str) else shipped
    if own_code and not set(shipped) & set(named):
        raise InputError(f"code of its own (auto_map) is never run here, and it is not the "
                         f"{shipped[0]} that transformers ships for {kind!r}")


def check_sizes(config, shapes):
    """No size below 1, and none that the weights cannot have."""
    if not shapes:
        raise InputError(f"there are no weights in safetensors ({SINGLE})")
    n = sum(map(math.prod, shapes.values()))
    inner = config.get("text_config")
    for name, value in [*config.items(), *(inner.items() if isinstance(inner, dict) else [])]:
        if not SIZES.search(name) or NO_SIZES.search(name):
            continue
        if isinstance(value, str):
            raise InputError(f"config.json: {name} is the text {value!r}, expected a number")
        if not isinstance(value, int) or isinstance(value, bool):
            continue
        most = len(shapes) if name.endswith(("layers", "layer")) else n
        if value < (name in NEEDED) or value > most:
            raise InputError(f"config.json: {name} is {value}, which {len(shapes)} weights of {n} "
                             "numbers cannot have")


# ---------------------------------------------------------------- its weights

def weight_files(path):
    """-> names of the files with weights, all in the folder itself; [] if there are none."""
    index = read_object(path, INDEX)
    if index is None:
        return [SINGLE] if place(path, SINGLE) else []
    known = index.get("weight_map")
    if not isinstance(known, dict) or not known:
        raise InputError(f"{INDEX} has no weight_map")
    for name in known.values():
        inside = isinstance(name, str) and re.fullmatch(r"[\w.+-]+\.safetensors", name)
        if not inside:
            raise InputError(f"{INDEX} names {name!r}, expected a .safetensors file beside it")
    return sorted(set(known.values()))


def opened(path):
    """-> (each file of weights, open) in turn."""
    for name in weight_files(path):
        full = place(path, name)
        if full is None:
            raise InputError(f"{name}, which {INDEX} names, is not there")
        try:
            with safe_open(full, "pt") as f:
                yield f
        except SafetensorError as error:
            raise InputError(f"{name} is damaged ({' '.join(str(error).split())[:120]})")


def weights(path):
    """-> {name of a weight: its shape}, of all files."""
    shapes = {}
    for f in opened(path):
        for key in f.keys():
            shapes[key] = tuple(f.get_slice(key).get_shape())
    return shapes


def is_stored_in_bf16(path):
    """By its files, not by what its config says: rounding fp32 weights would be another model."""
    kinds = set()
    for f in opened(path):
        kinds |= {f.get_slice(key).get_dtype() for key in f.keys()}
    return kinds == {"BF16"}
