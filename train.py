"""INFUSER: a generator learns to write the questions that are useful to a solver, and the solver learns from them.

    python train.py                                                             the embedded world: CPU, minutes
    python train.py --model PATH --documents FILE_OR_FOLDER --dev FILE          your own
    torchrun --nproc_per_node 8 train.py --model Qwen3-8B-Base                  the paper's recipe (with --run: torchrun ... -- train.py --run DIR)

One iteration, at solver theta and generator phi:

    1. dev answers     the solver answers every dev question m times                                      (M, m)
    2. drafts          the generator reads D documents and writes n questions from each                   (D, n)
    3. answers         the solver answers every valid question m times, checked against the draft's key   (Q, m)
    4. influence       at the unchanged theta: g_dev from 1, and for each question s_hat from 3           (Q,)
    5. generator       phi learns from 2, paid by s_hat through DuGRPO
    6. solver          theta learns from 3, paid by correctness

    code      symbol   shape       meaning
                                   M dev questions, D documents, n drafts of each, Q valid questions, m answers to each
    r, A_sol  r, A     (Q, m)      is the answer right; its advantage over the others to the same question
    g_dev     g_dev    like theta  gradient of the loss on the dev answers
    s_hat     s_hat    (Q,)        influence of a question
    score              (Q,)        what a question earns: s_hat, or another reward of rewards.py; None: the generator is not paid, and stays
    s, A_gen  s, A     (D, n)      the same in the grid of drafts, invalid ones included; their advantages

Every line that says `extension` is off unless its field is set, and can be skipped at the first reading.

Writes runs/NAME/: config.json, metrics.jsonl, questions.jsonl, checkpoint/, solver/, generator/. The random numbers of a run depend on its seed alone; a run
that was killed goes on with --resume. Departs from the released code: one process is the normal case, ranks share its work; nothing is overlapped.
"""
import itertools
import os
import sys
import time
from dataclasses import replace

import torch

import checkpoint
import config
import extensions
import generator as generator_role
import plan
import ranks
import rewards
import solver as solver_role
from data import InputError, document_batch, keep_fitting, load_documents, load_questions
from dugrpo import dugrpo
from evaluate import accuracy
from influence import dev_ema, dev_gradient, influence_scores, norm
from log import Clock, Log
from overlap import Overlap
from policy import Policy, device_of, take_turns, update
from verify import Verifier


def train(cfg):
    """Run the method from the newest checkpoint, or from the start, to cfg.iterations. Returns the run folder."""
    if cfg.threads:
        torch.set_num_threads(cfg.threads)
    if cfg.sampler == "vllm":
        import vllm_sampler                                                 # a guest; said before anything is written if it is not there
        vllm_sampler.require()
    log = Log(cfg)
    solver = Policy("solver", cfg.model, cfg.solver_lr, cfg)
    generator = Policy("generator", cfg.generator_anchor, cfg.generator_lr, cfg)
    policies = {"solver": solver, "generator": generator}
    if cfg.offload_idle:
        take_turns(solver, generator)
    documents, dev_set, test, written, problems = load_data(cfg, solver, generator, log)
    verifier = Verifier()
    start, g_dev_average = resume(cfg, policies, dev_set, log)
    if start == 0:
        log.anchor(evaluate(solver, test, 0, cfg, verifier))
        log.keep(0, policies)

    for t in range(start + 1, cfg.iterations + 1):
        clock, dev = Clock(), dev_set.questions                                                                         # M
        batch = [documents[i] for i in document_batch(len(documents), cfg.docs_per_step, cfg.seed, t - 1)] if documents else []      # D
        if cfg.seed_questions:                                              # extension: dev questions in the documents' place
            fits = lambda seeds: prompt_length(seeds, generator, cfg) <= cfg.max_prompt_tokens
            batch = extensions.seeds(dev, cfg.docs_per_step, cfg.seed_questions, (cfg.seed, t), fits)
        asked = dev if cfg.reward == "influence" or dev_set.due(t) or t % cfg.dev_every == 0 or t == cfg.iterations else []
        with clock("dev"):
            dev_answers = solver_role.answer_questions(solver, asked, cfg.answers_per_question, (cfg.seed, t, "solver", "dev"), cfg, what="dev answers")
            r_dev = solver_role.shared_rewards(asked, dev_answers, verifier)                                            # (M, m)
            A_dev = solver_role.advantages(dev_answers, r_dev, cfg)
        with clock("write"):
            drafts = generator_role.write_questions(generator, batch, (cfg.seed, t, "generator", "write"), cfg, solver)  # (D, n)
            slots = [(d, j) for d in range(len(drafts)) for j in range(cfg.questions_per_doc) if drafts[d][j].question is not None]
            questions = [drafts[d][j].question for d, j in slots]                                                       # Q
        if cfg.train_on != "generated":                                     # extension: no drafts, but dev or ready-made questions
            questions = extensions.instead(written or dev, t, cfg)
        Q, everything = len(questions), questions + problems.of(t)          # extension, hybrid RLVR: problems for the solver alone
        with clock("answer"):
            answers = solver_role.answer_questions(solver, everything, cfg.answers_per_question, (cfg.seed, t, "solver", "answer"), cfg)
            r = solver_role.shared_rewards(everything, answers, verifier)                                               # (Q, m), and the problems'
            A_sol = solver_role.advantages(answers, r, cfg)

        score = s_hat = own_share = g_dev_norm = None
        if cfg.reward == "influence":
            with clock("influence"):                                        # before either model moves
                g_dev = dev_gradient(solver, dev_answers, A_dev, cfg)
                g_dev = dev_ema(g_dev_average, g_dev, cfg.dev_ema)                                                      # extension: a running mean
                g_dev_average = g_dev if cfg.dev_ema and g_dev is not None else g_dev_average                           # extension
                s_hat, own_share = influence_scores(solver, answers[:Q], A_sol[:Q], g_dev, cfg)                         # (Q,)
                s_hat = extensions.gate(s_hat, r[:Q], cfg.gate_std)                                                     # off: as it is
                g_dev_norm, g_dev = norm(g_dev), None                       # as large as the model: not kept beside the updates
                score = s_hat if g_dev_norm is not None else None           # no g_dev: all scores are 0 and phi stays
        elif cfg.reward != "fixed":
            score = rewards.scores(cfg.reward, questions, answers[:Q], r[:Q], (cfg.seed, t))                            # (Q,)

        s = torch.full((len(drafts), cfg.questions_per_doc), cfg.invalid_score if score is not None else 0.0)           # (D, n)
        for (d, j), paid in zip(slots, score if score is not None else [0.0] * len(slots)):
            s[d, j] = paid
        A_gen = dugrpo(s, cfg.advantage) if drafts else s                                                               # (D, n)

        generator_step = solver_step = None
        if score is not None:
            with clock("update_generator"):
                generator_step = update(generator, [[draft.rollout for draft in row] for row in drafts], A_gen, cfg, what="update generator")
        kept = extensions.kept(slots, score, Q, cfg, (cfg.seed, t))                                                     # (Q,) all, if off
        if everything:
            with clock("update_solver"):
                solver_step = update(solver, answers, extensions.only(kept, A_sol), cfg, what="update solver")
        replaced = dev_set.refresh(r_dev) if dev_set.due(t) else None       # extension: new dev questions from the next iteration on

        with clock("evaluate"):
            result = evaluate(solver, test, t, cfg, verifier) if t % cfg.eval_every == 0 or t == cfg.iterations else None
        log.iteration(t, clock, drafts=drafts, slots=slots, dev_answers=dev_answers, r_dev=r_dev, A_dev=A_dev, answers=answers[:Q], r=r[:Q],
                      A_sol=A_sol[:Q], score=score, s_hat=s_hat, own_share=own_share, g_dev_norm=g_dev_norm, A_gen=A_gen,
                      generator_step=generator_step, solver_step=solver_step, test=result, verifier=verifier,
                      skipped=solver.skipped + generator.skipped, kept=kept, r_problems=r[Q:] if problems.pool else None, replaced=replaced)
        log.keep(t, policies)                                               # before the checkpoint: a run killed in between does t again
        if t % cfg.checkpoint_every == 0 or t == cfg.iterations:
            save(cfg, t, policies, g_dev_average, dev_set, log)
    verifier.close()
    log.finish(policies)
    return cfg.run


# ---------------------------------------------------------------- what the loop above calls

def taken(folder):
    return os.path.exists(os.path.join(folder, "config.json"))              # there before the first iteration; metrics.jsonl is not


def own_folder(cfg):
    """A new run never writes over an old one: a folder that was named is refused, a default one gets the next free number."""
    if cfg.resume or not taken(cfg.run):
        return cfg
    if "run" in cfg.given:
        raise InputError(f"--run {cfg.run}: holds a run already; give another folder, or go on with it by --resume {cfg.run}")
    return replace(cfg, run=next(folder for i in itertools.count(2) if not taken(folder := f"{cfg.run}-{i}")))


def load_data(cfg, solver, generator, log):
    """-> (documents, DevSet, test questions or [], questions written beforehand or [], Problems).

    What does not fit the prompt limit is left out, counted and said.
    """
    count = lambda text: len(generator.tokenizer(text, add_special_tokens=False).input_ids)
    reads = cfg.train_on == "generated" and not cfg.seed_questions
    documents = load_documents(cfg.documents, max_tokens=cfg.max_chunk_tokens, count_tokens=count) if reads else []
    fits_solver = lambda question: len(solver.prompt_ids(solver_role.prompt_text(question)))
    documents, skipped = keep_fitting(documents, lambda document: prompt_length(document, generator, cfg), cfg.max_prompt_tokens, "documents")
    if reads:
        log.say(f"{len(documents)} documents from {cfg.documents}, {skipped} left out as longer than {cfg.max_prompt_tokens} tokens")
    sets = {}
    for name in ("dev", "test", "dev_pool", "questions"):
        path, load = getattr(cfg, name), extensions.load_written if name == "questions" else load_questions
        sets[name], skipped = keep_fitting(load(path), fits_solver, cfg.max_prompt_tokens, f"{name} questions") if path else ([], 0)
        if path or name in ("dev", "test"):
            log.say(f"{len(sets[name])} {name} questions from {path}, {skipped} left out as too long" if path else f"no {name} questions")
    dev_set = extensions.DevSet(sets["dev"], sets["dev_pool"], cfg)
    problems = extensions.Problems(cfg.rlvr, dev_set.all, cfg)
    problems.pool, skipped = keep_fitting(problems.pool, fits_solver, cfg.max_prompt_tokens, "rlvr problems")
    if cfg.rlvr:
        log.say(f"{len(problems.pool)} problems from {cfg.rlvr}, {problems.excluded} left out as dev questions, {skipped} as too long")
    log.overlap = Overlap({"dev": dev_set.all, "test": sets["test"]})
    return documents, dev_set, sets["test"], sets["questions"], problems


def prompt_length(document, generator, cfg):
    return len(generator.prompt_ids(generator_role.prompt_text(document, cfg.question_type)))


def evaluate(solver, test, t, cfg, verifier):
    """Accuracy on the test questions at the present weights, or None without a test set. Nothing trains on it."""
    return accuracy(solver, test, cfg.eval_samples, (cfg.seed, t, "solver", "test"), cfg, verifier, what="test answers") if test else None


def save(cfg, t, policies, g_dev_average, dev_set, log):
    """The newest checkpoint becomes that of the end of iteration t."""
    before = time.time()
    checkpoint.save(cfg.run, policies, {"iteration": t, "dev": dev_set.state(), **log.state()}, g_dev_average)
    log.checkpoint_seconds = time.time() - before


def resume(cfg, policies, dev_set, log):
    """Put the newest whole checkpoint into the policies and the dev set, and cut the logs back to it -> (its iteration, running mean of g_dev or None)."""
    folder, state = checkpoint.find(cfg.run) if cfg.resume else (None, None)
    if folder is None and cfg.resume and checkpoint.exists(cfg.run):
        raise InputError(f"{cfg.run}: no whole checkpoint is left, so the run cannot go on; its logs are untouched. Start again with another --run")
    if folder and folder.endswith(".previous") and ranks.is_main():
        checkpoint.drop_newest(cfg.run)
    log.open(state, "bf16" if policies["solver"].bf16 else "fp32")
    if folder is None:
        return 0, None
    dev_set.load(state["dev"])
    return state["iteration"], checkpoint.load(folder, state, policies)


def main():
    cfg = None
    try:
        cfg = config.parse()
        if cfg.plan:
            print(plan.report(plan.setting_of(cfg, plan.Machine(gpus=cfg.gpus, gpu_gb=cfg.gpu_gb), plan.Assumed())))
            return 0
        ranks.start(device_of(cfg))
        cfg = own_folder(cfg)                                               # every rank finds the same one
        ranks.barrier()
        train(cfg)
    except InputError as error:
        if os.environ.get("LOCAL_RANK", "0") == "0":                        # one of each machine: a file may be missing on one of them only
            print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        if cfg and ranks.is_main():
            print(f"\nstopped. Go on from the newest checkpoint with: python train.py --resume {cfg.run}", file=sys.stderr)
        return 130
    except BaseException as error:                                          # another rank's death shows as an error of any kind
        dead = ranks.silent()
        if dead:
            ranks.say_dead(dead, f"go on from the newest checkpoint with: torchrun ... train.py --resume {cfg.run}")
            os._exit(1)                                                     # a clean exit would wait for the dead
        if not isinstance(error, ranks.Terminated):
            raise
        return 143
    finally:
        ranks.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
