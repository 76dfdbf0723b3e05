"""INFUSER: a generator learns to write the questions that are useful to a solver, which learns from
them.

    python train.py                                              the embedded world: CPU, minutes
    python train.py --model PATH --documents PATH --dev FILE     your own
    torchrun --nproc_per_node 8 train.py --model Qwen3-8B-Base   the paper's recipe

    code      symbol   shape       meaning
                                   M dev questions, D documents, n drafts of each, Q valid
                                   questions, m answers to each
    r, A      r, A     (Q, m)      is the answer right; its advantage over the question's others
    g_dev     g_dev    like theta  gradient of the loss on the dev answers
    s_hat     s_hat    (Q,)        influence of a question
    score              (Q,)        what it earns: s_hat, or other rewards of rewards.py
    s, A_gen  s, A     (D, n)      each reward in the grid of drafts; their advantages

The six steps are in `train`, below. `study` is the paper's main recipe; what the authors tried
beside it goes through that one object, or through the file that extensions.py names.

Writes runs/NAME/: config.json, metrics.jsonl, questions.jsonl, checkpoint/, solver/, generator/.
The random numbers of a run depend on its seed alone; --resume goes on with one that was stopped.
Departs from the released code: one process is the normal case, ranks share its work.
"""
import sys

from engine import flags
# Before torch is imported: --help and a misspelt flag are answered at once.
CFG = flags.from_command_line() if __name__ == "__main__" else None

import importlib
import time
from dataclasses import replace

import torch

import extensions
import generator as generator_role
import rewards
import solver as solver_role
from data import Document, Found, InputError, Question, keep_fitting
from dugrpo import dugrpo
from engine import checkpoint, ending, ranks, room, run_folder, summary
from engine.log import Clock, Log
from engine.models import device_of, sampler_of
from engine.overlap import Overlap
from engine.pools import unlike
from engine.readers import load_documents, load_questions
from engine.run_folder import fingerprint, model_fingerprint, own_folder
from engine.spelling import check_spelling, unreadable
from engine.verify import Verifier
from evaluate import accuracy
from generator import valid_questions, write_questions
from influence import dev_gradient, influence_scores, norm
from policy import Policy, take_turns, update
from solver import documents_of, solve


def train(cfg):
    """Run the method from its newest checkpoint, or the start, to cfg.iterations. -> run folder."""
    if cfg.threads:
        torch.set_num_threads(cfg.threads)
    log = Log(cfg, truth_of(cfg))
    solver, generator = load_models(cfg, log)
    study, held_out = load_data(cfg, solver, generator, log)
    verifier = Verifier()
    start = resume(cfg, solver, generator, study, log)
    if start == 0:
        log.anchor(evaluate(solver, held_out, 0, cfg, verifier))
        log.keep(0, solver, generator)

    for t in range(start + 1, cfg.iterations + 1):
        clock, measured = Clock(), {}

        # 1. The solver answers every dev question m times.
        #    These answers serve g_dev alone.
        clock.begin("dev")
        asked = study.dev_questions(t)
        dev = solve(solver, asked, t, "dev", cfg, verifier)  # (M, m)

        # 2. The generator reads the next D documents
        #    and writes n questions from each. A draft that is
        #    no valid question keeps its place in the grid.
        clock.begin("write")
        documents = study.documents(t)
        seed_words = (cfg.seed, t, "generator", "write")
        drafts = write_questions(
            generator, documents, seed_words, cfg, solver)  # (D, n)
        slots, drafted = valid_questions(drafts)  # (Q,)
        questions = study.questions(drafted, t)
        Q = len(questions)

        # 3. The solver answers every valid question m times,
        #    checked against the draft's own key.
        #    No RLVR problems in the main recipe.
        clock.begin("answer")
        everything = questions + study.problems(t)
        answered = solve(solver, everything, t, "answer", cfg, verifier)
        solved = answered[:Q]  # (Q, m)

        # 4. What is each question worth?
        #    Neither model has moved yet.
        clock.begin("influence")
        if cfg.by_influence:
            g_dev = study.g_dev(dev_gradient(solver, dev.answers, dev.A, cfg))
            s_hat, own_share = influence_scores(
                solver, solved.answers, solved.A, g_dev, cfg)
            s_hat = study.s_hat(s_hat, slots)  # (Q,)
            measured = dict(s_hat=s_hat, own_share=own_share, g_dev_norm=norm(g_dev))
            # as large as the model: kept no longer
            del g_dev
        # in the main recipe one term: influence
        earned = earnings(measured, solved, cfg, t)
        score = rewards.total(earned)  # (Q,)

        # 5. The generator learns from its drafts,
        #    paid by those terms through DuGRPO.
        clock.begin("update_generator")
        A_gen = 0
        for term, paid in earned.items():
            s = grid(paid, slots, drafts, term, cfg)  # (D, n)
            A_gen += term.weight * dugrpo(s, term.advantage)
        written = rollouts_of(drafts)
        generator_step = update(generator, written, A_gen, cfg)

        # 6. The solver learns from its answers,
        #    paid by correctness. Each mini-batch
        #    mixes as many documents as it can.
        clock.begin("update_solver")
        kept = study.kept(slots, score, solved, t)  # (Q,)
        learnt, A_sol = study.batch(kept, answered, dev)
        origin = documents_of(slots, learnt)
        solver_step = update(solver, learnt, A_sol, cfg, origin)

        # What came of it. Now and then the solver is tested.
        clock.begin("evaluate")
        tested = evaluate(solver, held_out, t, cfg, verifier)
        clock.end()
        log.iteration(Found(
            t, dev, drafts, slots, solved, answered[Q:], score, earned,
            A_gen, kept, generator_step, solver_step, tested,
            replaced=study.after(t, dev.r),
            skipped=solver.skipped + generator.skipped,
            **measured), clock, verifier)

        # Models before the checkpoint: a run killed in between does t again.
        log.keep(t, solver, generator)
        if due(t, cfg.checkpoint_every, cfg):
            save(cfg, t, solver, generator, study, log)
    verifier.close()
    log.finish(solver, generator)
    checkpoint.drop_previous(cfg.run)
    return cfg.run


# ---------------------------------------------------------------- what the loop above calls

def earnings(measured, solved, cfg, t):
    """The Q questions as answered, and the s_hat measured -> {term: (Q,) what they earn by it}."""
    def given():
        return solver_role.given(solved.questions, solved.answers)

    # without a g_dev influence pays nobody
    s_hat = measured["s_hat"] if measured.get("g_dev_norm") is not None else None
    return rewards.earnings(
        cfg.terms, s_hat, solved.questions, given, solved.r, (cfg.seed, t))


def grid(score, slots, drafts, term, cfg):
    """(Q,) scores, the slots they belong to -> (D, n), term.invalid where a draft is no question.

    No score: all 0, so that nobody has an advantage.
    """
    s = torch.zeros(len(drafts), cfg.questions_per_doc)                             # (D, n)
    if score is None:
        return s
    s.fill_(term.invalid)
    for (d, j), paid in zip(slots, score):
        s[d, j] = paid
    return s


def rollouts_of(drafts):
    """Both (D, n)."""
    return [[draft.rollout for draft in group] for group in drafts]


def due(t, every, cfg):
    """Every so many iterations, and after the last."""
    return t % every == 0 or t == cfg.iterations


def evaluate(solver, held_out, t, cfg, verifier):
    """-> {"test", "valid": accuracy at the present weights, or None where it is not due}.

    Nothing trains on either. Validation samples as training does, so as released.
    """
    as_training = replace(
        cfg, eval_temperature=cfg.temperature, eval_top_p=cfg.top_p, eval_top_k=cfg.top_k)
    ways = {"test": (cfg.eval_every, cfg), "valid": (cfg.valid_every, as_training)}
    found = dict.fromkeys(ways)
    for name, (every, how) in ways.items():
        seed_words = cfg.seed, t, "solver", name
        if held_out[name] and due(t, every, cfg):
            found[name] = accuracy(solver, held_out[name], cfg.eval_samples, seed_words, how,
                                   verifier, what=f"{name} answers")
    return found


# ---------------------------------------------------------------- before the loop

def truth_of(cfg):
    """The function that judges drafts for the log, where the truth is known; else None."""
    return importlib.import_module(cfg.truth).truth if cfg.truth else None


def load_models(cfg, log):
    """-> solver, generator: two full copies of the anchor, each with its own AdamW."""
    if cfg.sampler not in ("auto", "plain"):
        # an optional sampler that is missing says so before anything is written
        importlib.import_module(f"engine.{cfg.sampler}_sampler").require(cfg)
    room.refuse(cfg)
    solver = Policy("solver", cfg.model, cfg.solver_lr, cfg)
    log.say(room.takes(cfg))
    generator = Policy("generator", cfg.generator_anchor, cfg.generator_lr, cfg)
    if cfg.offload_idle:
        take_turns(solver, generator)
    asked, written = Question("", ["", ""], ""), Document("", "")
    answered = solver_role.prompt_text(asked, cfg.prompts)
    check_spelling(solver.tokenizer, {"solver.py": answered})
    drafted = generator_role.prompt_text(written, cfg.question_type, cfg.prompts)
    check_spelling(generator.tokenizer, {"generator.py": drafted})
    log.inputs |= {
        "solver's anchor": model_fingerprint(cfg.model),
        "generator's anchor": model_fingerprint(cfg.generator_anchor),
        "prompts": fingerprint(prompts(solver, generator, cfg))}
    return solver, generator


def prompts(solver, generator, cfg):
    """-> what the roles read of one question and one document, as text and as tokens."""
    question = Question("2 + 2 = ?", ["4", "5"], "4")
    plain = Document("", "Caf\u00e9.")
    seeded = Document("", "Caf\u00e9.", frozenset({"2 + 2 = ?"}))
    asked = [solver_role.prompt_text(x, cfg.prompts) for x in (question, Question("?", [], ""))]
    read = [generator_role.prompt_text(text, cfg.question_type, cfg.prompts)
            for text in (plain, seeded)]
    return [(text, solver.prompt_ids(text), solver.stop_ids) for text in asked] + [
        (text, generator.prompt_ids(text), generator.stop_ids) for text in read]


def load_data(cfg, solver, generator, log):
    """-> the study, {"test", "valid": questions, or []}. What does not fit the prompt is left out
    and said."""
    def prompt_length(document):
        text = generator_role.prompt_text(document, cfg.question_type, cfg.prompts)
        return len(generator.prompt_ids(text))

    def count(text):
        return len(generator.tokenizer(text, add_special_tokens=False).input_ids)

    def length(question):
        return len(solver.prompt_ids(solver_role.prompt_text(question, cfg.prompts)))

    def questions_of(name, load=load_questions, known=(), of_others="dev questions"):
        path = getattr(cfg, name)
        everything = load(path, log.say) if path else []
        new = unlike(known, everything)
        if everything and not new:
            raise InputError(f"{path}: all of its {len(everything)} questions are {of_others}")
        log.inputs |= {name: fingerprint(everything)} if path else {}
        log.say(unreadable(solver.tokenizer, new, path))
        what = f"{'validation' if name == 'valid' else name} questions"
        questions, skipped = keep_fitting(new, length, cfg.max_prompt_tokens, what)
        copies = f", {len(everything) - len(new)} as {of_others}" if known else ""
        if path:
            log.say(summary.line(questions, what, path, skipped, copies))
        return questions

    documents = []
    if cfg.reads_documents:
        documents = load_documents(cfg.documents, cfg.max_chunk_tokens, count, log.say)
        log.inputs["documents"] = fingerprint(documents)
        documents, skipped = keep_fitting(
            documents, prompt_length, cfg.max_prompt_tokens, "documents")
        log.say(summary.line(documents, "documents", cfg.documents, skipped))
    dev, test = questions_of("dev"), questions_of("test")
    study = extensions.study_of(cfg, documents, dev, questions_of, prompt_length, log.say)
    log.overlap = Overlap({"dev": study.all_dev(), "test": test})
    log.say(summary.asked_twice(test, study.all_asked(), cfg.test))
    # the last to choose, so that it changes nothing that trains
    valid = questions_of("valid", known=study.all_asked() + test, of_others="asked elsewhere")
    return study, {"test": test, "valid": valid}


# ---------------------------------------------------------------- stopping and going on

def save(cfg, t, solver, generator, study, log):
    """The newest checkpoint becomes that of the end of iteration t."""
    before = time.time()
    remembered, g_dev_average = study.state()
    state = {"iteration": t, "study": remembered, **log.state()}
    checkpoint.save(cfg.run, {"solver": solver, "generator": generator}, state, g_dev_average)
    run_folder.LOCK.note_checkpoint(True)
    log.checkpoint_seconds = time.time() - before


def resume(cfg, solver, generator, study, log):
    """The newest whole checkpoint into models and study; logs cut back. -> its iteration, or 0."""
    folder, state = log.open("bf16" if solver.bf16 else "fp32")
    if folder is None:
        return 0
    if folder.endswith(".previous") and ranks.is_main():
        checkpoint.drop_newest(cfg.run)
    average = checkpoint.load(folder, state, {"solver": solver, "generator": generator})
    # the questions in use are remembered by number, which say nothing of another dev set
    known = not {"dev", "dev_pool"} & set(log.accepted)
    study.load(state["study"] if known else None, average)
    if state["iteration"] >= cfg.iterations:
        log.say(f"{cfg.run}: {state['iteration']} iterations are done and {cfg.iterations} were "
                f"asked for; --iterations {2 * state['iteration']} would go on")
    return state["iteration"]


def main(cfg):
    """A Config, or the InputError in its place -> the exit code."""
    try:
        ranks.meet(cfg)
        if cfg.plan:
            # a tool, looked up by name: nothing that trains needs it
            return importlib.import_module("tools.plan").plan_of_run(cfg)
        ranks.start(device_of(cfg))
        # every rank finds the same one
        cfg = replace(own_folder(cfg), sampler=ranks.from_main(sampler_of(cfg)))
        ranks.barrier()
        train(cfg)
    except BaseException as error:
        code = ending.say(error, cfg)
        if code is None:
            raise
        return code
    finally:
        run_folder.LOCK.release()
        ranks.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main(CFG))
