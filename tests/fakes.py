"""Models small enough to hold in mind, rollouts of random tokens, and the plain way to compute what
the project computes cleverly.

    kind        model
    tied        Qwen3, 2 layers of 32, 56 tokens, embedding and head are one tensor
    untied      the same with a head of its own
    window      Olmo3, 2 layers, the first of which sees 4 positions back
    stored      untied, its files in bf16
    windows     Mistral, 2 layers that both see 4 positions back, and say so in another field of
                the config
"""
import json
import multiprocessing
from dataclasses import replace
from itertools import chain

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    MistralConfig, MistralForCausalLM, Olmo3Config, Olmo3ForCausalLM, PreTrainedTokenizerFast,
    Qwen3Config, Qwen3ForCausalLM)

from config import ROOT, Config
from data import Rollout
from engine.logps import tree_logps
from influence import influence_scores
from policy import Policy

SPECIAL = ["<pad>", "<unk>", "<eos>", "<|user|>", "<|assistant|>", "<|end|>"]
WORDS = [f"w{i}" for i in range(50)]
V = len(SPECIAL) + len(WORDS)
EOS = SPECIAL.index("<eos>")
END = SPECIAL.index("<|end|>")
TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|> ' + message['content'] + ' <|end|> ' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|> {% endif %}")


def make_tokenizer(template=TEMPLATE):
    """One token a word; a turn ends with <|end|>, which is not the EOS, as in Qwen3-Base."""
    ids = {word: i for i, word in enumerate(SPECIAL + WORDS)}
    inner = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token="<unk>", pad_token="<pad>", eos_token="<eos>",
        additional_special_tokens=SPECIAL[3:])
    tokenizer.chat_template = template
    return tokenizer


def make_model(kind="tied", seed=0):
    """Weights ten times larger than usual, so that the next token is far from uniform and every
    mistake shows.
    """
    torch.manual_seed(seed)
    sizes = dict(
        vocab_size=V, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=256,
        initializer_range=0.2, eos_token_id=EOS, pad_token_id=0, bos_token_id=None)
    if kind == "window":
        layers = ["sliding_attention", "full_attention"]
        shape = Olmo3Config(**sizes, sliding_window=4, layer_types=layers)
        return Olmo3ForCausalLM(shape).eval()
    if kind == "windows":
        return MistralForCausalLM(MistralConfig(**sizes, sliding_window=4)).eval()
    shape = Qwen3Config(**sizes, head_dim=8, tie_word_embeddings=kind == "tied")
    return Qwen3ForCausalLM(shape).eval()


def make_policy(folder, kind="tied", lr=1e-3, **changes):
    """-> (Policy, Config), the model having gone through a folder as every model does."""
    path = folder / kind
    if not path.exists():
        model = make_model(kind)
        model.to(torch.bfloat16 if kind == "stored" else torch.float32).save_pretrained(path)
        make_tokenizer().save_pretrained(path)
    cfg = Config(device="cpu", max_response_tokens=12, minibatch_rows=8, grad_clip=1e9)
    cfg = replace(cfg, **changes)
    return Policy("solver", str(path), lr, cfg), cfg


def make_groups(lengths, prompts=None, seed=0, words=V - len(SPECIAL)):
    """[[response lengths of a group], ...] -> groups of rollouts of random tokens.

    Their log-probs are far from the model's. words: how many different tokens there are; of two,
    many answers begin alike and some are the same.
    """
    g = torch.Generator().manual_seed(seed)

    def draw(n):
        return torch.randint(len(SPECIAL), len(SPECIAL) + words, (n,), generator=g).tolist()

    groups = []
    for i, of_group in enumerate(lengths):
        prompt = draw(prompts[i] if prompts else 3 + 2 * i)
        group = []
        for n in of_group:
            response = draw(n - 1) + [EOS]
            logp = -3.5 + 0.5 * torch.randn(n, generator=g)
            group.append(Rollout(prompt, response, logp.tolist(), True, ""))
        groups.append(group)
    return groups


def advantages(groups, seed=0):
    """(G, m) advantages that add up to zero in each row, like those of real rewards."""
    g = torch.Generator().manual_seed(seed)
    A = torch.randn(len(groups), len(groups[0]), generator=g)
    return A - A.mean(dim=1, keepdim=True)


def small_world(folder, sizes, **counts):
    """So many items of the embedded world's files, in `folder` -> flags of a run on them."""
    words = []
    for name, n in counts.items():
        some = json.loads((ROOT / f"toy/{name}.json").read_text())[:n]
        (folder / f"{name}.json").write_text(json.dumps(some))
        words += [f"--{name}", str(folder / f"{name}.json")]
    for name, value in sizes.items():
        words += [f"--{name}", str(value)]
    return words


# ---------------------------------------------------------------- the plain way

def packed_logps(policy, trees, temperature, cfg):
    """Trees -> (tokens,) log-probs in the order of the rollouts' flat indices."""
    answers = list(chain.from_iterable(tree.answers for tree in trees))
    lengths = [len(rollout.response) for _, rollout in answers]
    parts = tree_logps(policy, trees, temperature, cfg).split(lengths)
    order = sorted(range(len(answers)), key=lambda j: answers[j][0])
    return torch.cat([parts[j] for j in order])


def plain_logps(model, group, temperature):
    """A group -> list of (tokens,) log-probs, through the model's own logits.

    One row per answer, padded on the right.
    """
    rows = [rollout.prompt + rollout.response for rollout in group]
    L = max(map(len, rows))
    ids = torch.tensor([row + [0] * (L - len(row)) for row in rows])               # (m, L)
    mask = torch.tensor([[1] * len(row) + [0] * (L - len(row)) for row in rows])   # (m, L)
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits     # (m, L, V)
    logp = torch.log_softmax(logits / temperature, dim=-1)

    found = []
    for i, x in enumerate(group):
        # the logits at a place are those of the next token
        start = len(x.prompt) - 1
        chosen = torch.tensor(x.response)[:, None]                                 # (tokens, 1)
        found.append(logp[i, start:start + len(x.response)].gather(1, chosen)[:, 0])
    return found


def plain_loss(model, group, A, old, denominator, cfg):
    """The token loss of one group, a token at a time, in Python.

    old: list of (tokens,) log-probs, or None for the present ones.
    """
    total = 0.0
    logps = plain_logps(model, group, cfg.temperature)
    for i, (x, logp) in enumerate(zip(group, logps)):
        a = float(A[i])
        for t in range(len(x.response)):
            before = float((logp if old is None else old[i])[t].detach())
            rho = torch.exp(logp[t] - before)
            loss = -a * rho
            if rho.detach() != 1:
                loss = max(loss, -a * rho.clamp(1 - cfg.clip, 1 + cfg.clip))
            if a < 0 and loss > -cfg.dual_clip * a:
                loss = torch.tensor(-cfg.dual_clip * a)
            w = min(2.718281828459045 ** (before - x.logp[t]), cfg.tis_cap)
            total = total + loss * w
    return total / denominator


def gradients(loss, params):
    """Gradients of a scalar, zeros where it does not depend on a parameter."""
    found = torch.autograd.grad(loss, params, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(params, found)]


def distance(a, b):
    """|a - b| / |b| of two lists of tensors."""
    a, b = flat(a), flat(b)
    return float((a - b).norm() / b.norm())


def flat(tensors):
    """A list of tensors -> one vector in float64."""
    return torch.cat([x.detach().double().flatten() for x in tensors])


# ---------------------------------------------------------------- processes of their own

def start_apart(function, *args):
    """Run a module-level function in a process of its own.

    It starts fast: its server has imported the heavy libraries already.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["torch", "transformers.models.qwen3.modeling_qwen3", "train"])
    process = context.Process(target=function, args=args)
    process.start()
    return process


def wait_for(processes, seconds):
    """-> their exit codes, None for one that had to be killed after so many seconds.

    A hang must fail a test, not hang it.
    """
    codes = []
    for process in processes:
        process.join(seconds)
        codes.append(process.exitcode)
    for process in processes:
        process.kill()
    return codes


def s_hat_of(*args):
    """The scores alone."""
    return influence_scores(*args)[0]
