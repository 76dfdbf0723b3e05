"""Which architectures can be trained here? Every causal language model of transformers in a small
random form, through the check that a run begins with and then through training and sampling.

    python -m tools.architectures --write docs/models.md        all, minutes on a core
    python -m tools.architectures llama gemma2 phi3             these

Each is made of its own config class, with two layers or one of each kind, 32 wide, windows of 8
positions, and large random weights, so that a mistake shows. A model that is not refused answers
and is trained on: the log-probs of its tokens in trees, and as they were sampled, against those of
its own logits, one answer at a time without a cache.

    exact      the largest difference is at most LIMIT
    refused    one line before the run, in its words
    not made   no small form came of the sizes below; nothing is known
    WRONG      neither: a mistake of ours. There is no such row
"""
import re
import tempfile
from pathlib import Path

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, AutoTokenizer, logging
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from config import ROOT, Config
from data import InputError, Rollout
from engine.arguments import Parser
from engine.logps import tree_logps
from engine.packing import pack
from engine.speech import run_script, shorten
from policy import Policy
from sampling import sample

LIMIT = 1e-5
# More parameters than this is not small: a size that is not in the list below.
MOST = 3_000_000
START, END = "<!-- table: python -m tools.architectures -->", "<!-- end of the table -->"

WIDTHS = ("hidden_size", "d_model", "n_embd", "dim", "embedding_size", "word_embed_proj_dim",
          "hidden_size_per_layer_input", "emb_dim", "input_embedding_size", "attention_hidden_size")
LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers",
          "decoder_layers", "num_decoder_layers", "num_encoder_layers")
HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads", "encoder_attention_heads",
         "decoder_attention_heads", "num_decoder_attention_heads", "num_encoder_attention_heads")
INNER = ("intermediate_size", "ffn_dim", "ffn_hidden_size", "encoder_ffn_dim", "decoder_ffn_dim",
         "n_inner", "dff", "dim_ff", "d_inner", "feed_forward_size", "d_ff",
         "shared_intermediate_size")
EXPERT_WIDTHS = ("moe_intermediate_size", "shared_expert_intermediate_size",
                 "moe_shared_expert_intermediate_size", "expert_ffn_hidden_size",
                 "intermediate_size_mlp", "prefix_dense_intermediate_size",
                 "dense_intermediate_size")
EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
POSITIONS = ("max_position_embeddings", "n_positions", "max_seq_len", "n_ctx",
             "max_target_positions", "max_sequence_length", "context_length")
WINDOWS = ("sliding_window", "window_size", "attention_window_size", "attention_chunk_size",
           "local_attention", "sliding_window_size")
SMALL = {
    **dict.fromkeys(WIDTHS, 32), **dict.fromkeys(LAYERS, 2), **dict.fromkeys(HEADS, 4),
    **dict.fromkeys(INNER, 48), **dict.fromkeys(EXPERT_WIDTHS, 16), **dict.fromkeys(EXPERTS, 4),
    **dict.fromkeys(POSITIONS, 128), **dict.fromkeys(WINDOWS, 8),
    "vocab_size": 239, "vocab_size_per_layer_input": 239, "n_vocab": 239, "head_dim": 8,
    "kv_channels": 8, "num_key_value_heads": 2, "num_kv_heads": 2, "num_experts_per_tok": 2,
    "moe_topk": 2, "moe_k": 2, "top_k_experts": 2, "num_experts_per_token": 2,
    "n_shared_experts": 1, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1,
    "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8,
    "v_head_dim": 8, "global_head_dim": 8, "swa_head_dim": 8, "swa_num_key_value_heads": 2,
    "swa_num_attention_heads": 4, "swa_v_head_dim": 8, "rotary_dim": 8, "lru_width": 32,
    "state_size": 8, "mamba_d_state": 8, "mamba_n_heads": 4, "mamba_d_head": 16,
    "mamba_d_ssm": 64, "ssm_state_size": 8, "mamba_num_heads": 4, "mamba_head_dim": 16,
    "n_mamba_heads": 2, "mamba_n_groups": 1, "linear_num_key_heads": 2,
    "linear_num_value_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8,
    "index_n_heads": 2, "index_head_dim": 8, "index_topk": 8, "is_decoder": True,
    "logits_scaling": 4.0, "altup_num_inputs": 2, "laurel_rank": 8, "num_kv_shared_layers": 0,
    "bos_token_id": 2, "eos_token_id": 4, "pad_token_id": 0, "n_languages": 1,
    "attention_dropout": 0.0, "attn_pdrop": 0.0, "resid_pdrop": 0.0, "embd_pdrop": 0.0,
    "dropout": 0.0, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}

# What these leave open, or derive from other sizes.
OFTEN_NONE = ("head_dim", "num_key_value_heads", "n_routed_experts", "moe_intermediate_size",
              "num_experts_per_tok", "n_shared_experts", "n_group", "topk_group")
BESIDE = {
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "mamba2": {"num_heads": 4, "head_dim": 16}}


# ---------------------------------------------------------------- small random models

def small_config(kind):
    """A model_type -> its config in small."""
    make = CONFIG_MAPPING[kind]
    usual = make()
    known = usual.to_dict()
    words = sizes(known)
    if isinstance(known.get("text_config"), dict):
        words["text_config"] = sizes(known["text_config"])
    return make(**words | BESIDE.get(kind, {}))


def sizes(known):
    """What a config of this kind says by default -> what the small one says."""
    words = {name: SMALL[name] for name in known
             if name in SMALL and (known[name] is not None or name in OFTEN_NONE)}
    if "kv_lora_rank" in known:
        # latent attention: as many heads of keys as of queries
        words["num_key_value_heads"] = 4
    for name in ("layer_types", "layers_block_type", "mlp_layer_types"):
        kinds = known.get(name)
        if isinstance(kinds, list) and kinds:
            # one layer of each kind, at least two
            words[name] = (list(dict.fromkeys(kinds)) * 2)[:max(2, len(set(kinds)))]
    layers = max([len(x) for x in words.values() if isinstance(x, list)], default=2)
    for name, value in words.items():
        if isinstance(value, list):
            words[name] = (value * layers)[:layers]
        if name in LAYERS:
            words[name] = layers
    return words


def build(kind, folder, seed=0):
    """A model_type -> its small random model and the embedded world's tokenizer, in a folder."""
    config = small_config(kind)
    with torch.device("meta"):
        n = sum(p.numel() for p in AutoModelForCausalLM.from_config(config).parameters())
    if n > MOST:
        raise ValueError(f"{n} parameters")
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() > 1:
                p.normal_(0, 0.1)
            else:
                p.add_(0.05 * torch.randn_like(p))
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(ROOT / "toy/anchor").save_pretrained(folder)


# ---------------------------------------------------------------- is it exact

def config_of_run():
    return Config(device="cpu", dtype="fp32", max_prompt_tokens=40, max_response_tokens=24,
                  temperature=1.0, tokens_at_once=512)


def difference(policy, cfg, seed=0):
    """-> the largest difference of a log-prob: in trees, and as sampled, against its own logits."""
    g = torch.Generator().manual_seed(seed)
    prompts = [torch.randint(5, 200, (n,), generator=g).tolist() for n in (30, 5, 17)]
    found = []
    for prompt, group in zip(prompts, sample(policy, prompts, 4, ("tool", seed), cfg)):
        # a beginning that two answers share
        twin = group[0].response[:6] + group[1].response[-6:]
        group = [*group, Rollout(prompt, twin, [0.0] * len(twin), True, "")]
        right = [own_logps(policy.model, prompt, rollout.response) for rollout in group]
        for rollout, logps in zip(group[:-1], right):
            found.append((torch.tensor(rollout.logp) - logps).abs().max())
        for tree in pack(group, 0, len(group)):
            logps = tree_logps(policy, [tree], 1.0, cfg).detach()
            expected = torch.cat([right[i] for i, _ in tree.answers])
            found.append((logps - expected).abs().max())
    return float(max(found))


@torch.no_grad()
def own_logps(model, prompt, response):
    """The plain way: one row, no cache, its own logits -> (tokens,)."""
    logits = model(torch.tensor([prompt + response]), use_cache=False).logits[0].float()
    logp = logits.log_softmax(-1)[len(prompt) - 1:-1]
    return logp.gather(1, torch.tensor(response)[:, None])[:, 0]


def judged(kind):
    """A model_type -> (verdict, words)."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            build(kind, folder)
        except Exception as error:
            # a default config that cannot be made small is no fault of anybody
            return "not made", " ".join(str(error).split())[:90]
        cfg = config_of_run()
        try:
            policy = Policy("solver", folder, 0.0, cfg)
            off = difference(policy, cfg)
        except InputError as error:
            return "refused", re.sub(r"^(--model \S+|model \S+): |; not supported$", "", str(error))
        except Exception as error:
            return "WRONG", f"{type(error).__name__}: {' '.join(str(error).split())[:90]}"
    return ("exact", f"{off:.0e}") if off <= LIMIT else ("WRONG", f"off by {off:.0e}")


# ---------------------------------------------------------------- the table

NOT_MADE = """No small random form could be made, so nothing is known of these here; a real one goes
through the trial above. (The reasons are transformers' own; a number of parameters: it would not
become small.)"""


def table(rows):
    """[(model_type, verdict, words)] -> Markdown."""
    lines = []
    for verdict in ("exact", "refused", "WRONG", "not made"):
        some = [(kind, words) for kind, found, words in rows if found == verdict]
        if not some:
            continue
        lines += ["", f"### {verdict}: {len(some)}", ""]
        if verdict == "not made":
            lines += [NOT_MADE, ""]
        if verdict == "exact":
            lines += ["| largest difference of a log-prob | architectures |", "|---|---|"]
        else:
            lines += ["| why | architectures |", "|---|---|"]
        by_words = {}
        for kind, words in some:
            by_words.setdefault(words.replace("|", "\\|"), []).append(kind)
        for words, kinds in sorted(by_words.items()):
            lines.append(f"| {words} | {', '.join(kinds)} |")
    return "\n".join(lines[1:])


def page_text(path):
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--write {path}: {shorten(error)}, expected a page to change") from None


def main(argv=None):
    parser = Parser("python -m tools.architectures", __doc__)
    parser.add_argument("kinds", nargs="*", help="model types of transformers; none: all")
    parser.add_argument("--write", help="a page whose table is replaced")
    args = parser.parse_args(argv)
    logging.set_verbosity_error()
    if args.write and START not in page_text(args.write):
        raise InputError(f"--write {args.write}: has no {START}, behind which the table stands")
    rows = []
    for kind in args.kinds or MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        rows.append((kind, *judged(kind)))
        print(*rows[-1], flush=True)
    if args.write:
        before, rest = page_text(args.write).split(START)
        after = rest.split(END)[1]
        text = f"{before}{START}\n{table(rows)}\n{END}{after}"
        Path(args.write).write_text(text, encoding="utf-8")
    return 1 if any(verdict == "WRONG" for _, verdict, _ in rows) else 0


if __name__ == "__main__":
    raise SystemExit(run_script(main))
