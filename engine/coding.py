"""Coding benchmarks: programs that a model wrote run in tools made for it, and never here.

    commands(name, folder, samples)   what to type: the tool, on the saved model
    read_results(path)                the tool's result file -> records, one a problem

    tool                      result file
    evalplus                  ..._eval_results.json        HumanEval+
    lm-evaluation-harness     samples_humaneval_plus_*.jsonl (--log_samples)
    LiveCodeBench             ..._eval_all.json

A problem of HumanEval+ is solved if it passes the first tests and the added ones. A record has the
fields that engine/statistics.py needs: "question_id" and "right", 1 or 0 for each program.

These tools are not quite the authors' (OpenCompass): evalplus has no flag for top_p, top_k and the
length, and stops at 768 tokens; LiveCodeBench has none for top_k; the harness samples once.
"""
import json
import shlex

from data import InputError
from engine.benchmarks import BENCHMARKS
from engine.files import opened, printable, read_whole
from engine.speech import shorten

HUMANEVAL, LIVECODEBENCH = "humaneval-plus", "livecodebench"
EXPECTED = ("expected the result file of evalplus (..._eval_results.json), of "
            "lm-evaluation-harness (samples_humaneval_plus_*.jsonl) or of LiveCodeBench "
            "(..._eval_all.json)")


def commands(name, folder, samples):
    """A coding benchmark, a model folder, programs per problem -> lines to type."""
    model = shlex.quote(str(folder))
    longest = BENCHMARKS[name].max_tokens
    if name == HUMANEVAL:
        return [
            f"evalplus.evaluate --model {model} --dataset humaneval --backend vllm "
            f"--n_samples {samples} --temperature 0.7",
            f"HF_ALLOW_CODE_EVAL=1 lm_eval --model vllm --model_args pretrained={model} "
            "--tasks humaneval_plus --confirm_run_unsafe_code --log_samples --output_path results "
            f"--gen_kwargs do_sample=True,temperature=0.7,top_p=0.8,top_k=20,"
            f"max_gen_toks={longest}"]
    return [
        "python -m lcb_runner.runner.main --scenario codegeneration --evaluate "
        f"--release_version release_v5 --n {samples} --temperature 0.7 --top_p 0.8 "
        f"--max_tokens {longest} --local_model_path {model} --model NAME"]


HINTS = {
    HUMANEVAL: "the first for a base model: with --force_base_prompt",
    LIVECODEBENCH: "NAME: one of its lm_styles.py whose prompt is the model's"}


def how_to(name, folders, samples):
    """A coding benchmark and the models without a result -> the lines that are printed."""
    title = BENCHMARKS[name].title
    lines = [f"\n{title}: programs are not run here. Run one of these where that is safe "
             f"({HINTS[name]}), then give the result file to --coding_results:"]
    for folder in folders:
        lines += [f"  {line}" for line in commands(name, folder, samples)]
    return "\n".join(lines)


# ---------------------------------------------------------------- result files

def read_results(path):
    """A tool's result file -> (short name of the benchmark, records). Raises InputError."""
    found = parsed(path)
    if isinstance(found, dict) and isinstance(found.get("eval"), dict):
        name, groups = HUMANEVAL, of_evalplus(found["eval"], path)
    elif isinstance(found, dict) and "results" in found:
        raise InputError(f"{printable(path)}: has means alone, expected the file of each answer, "
                         "samples_humaneval_plus_*.jsonl, which lm_eval writes with --log_samples")
    elif is_list_with(found, "graded_list"):
        name, groups = LIVECODEBENCH, of_livecodebench(found, path)
    elif is_list_with(found, "pass@1") and is_list_with(found, "resps"):
        name, groups = HUMANEVAL, of_harness(found, path)
    else:
        raise InputError(f"{printable(path)}: {EXPECTED}")

    records = []
    for problem, right in groups:
        if not right:
            raise InputError(f"{printable(path)}: problem {shorten(problem)} has no answer, "
                             "expected at least one each")
        records.append({"question_id": str(problem), "right": right})
    ids = {x["question_id"] for x in records}
    if not records or len(ids) < len(records):
        raise InputError(f"{printable(path)}: no problem, or one twice, expected each once")
    return name, records


def parsed(path):
    """A file of JSON or JSONL -> its value, or the list of its lines."""
    with opened(path) as (stream, _):
        raw = read_whole(stream, path)
    try:
        try:
            return json.loads(raw)
        except ValueError:
            return [json.loads(line) for line in raw.splitlines() if line.strip()]
    except (ValueError, RecursionError):
        raise InputError(f"{printable(path)}: no JSON, {EXPECTED}") from None


def is_list_with(found, field):
    return (isinstance(found, list) and bool(found)
            and all(isinstance(item, dict) and field in item for item in found))


def of_evalplus(problems, path):
    """{"HumanEval/0": [{"base_status", "plus_status"}, ...]} -> [(problem, right)]."""
    groups = []
    for problem, answers in problems.items():
        if not problem.startswith("HumanEval/"):
            raise InputError(f"{printable(path)}: problem {shorten(problem)}, expected those of "
                             "HumanEval/")
        if not (isinstance(answers, list) and all(isinstance(x, dict) for x in answers)):
            raise InputError(f"{printable(path)}: {problem} is no list of answers, {EXPECTED}")
        right = []
        for answer in answers:
            status = (answer.get("base_status"), answer.get("plus_status"))
            if status[1] is None:
                raise InputError(f"{printable(path)}: {problem} has no plus_status, expected a run "
                                 "without --base_only")
            right.append(int(status == ("pass", "pass")))
        groups.append((problem, right))
    return groups


def of_harness(samples, path):
    """[{"doc": {"task_id"}, "resps": [[answer, ...]], "pass@1": share}] -> [(problem, right)]."""
    groups = []
    for number, sample in enumerate(samples, 1):
        doc, answers, share = sample.get("doc", {}), sample["resps"], sample["pass@1"]
        whole = isinstance(doc, dict) and isinstance(share, (int, float))
        if not (whole and isinstance(answers, list) and all(isinstance(x, list) for x in answers)):
            raise InputError(f"{printable(path)}: line {number}: 'doc', 'resps' or 'pass@1' is not "
                             f"as lm_eval writes it, {EXPECTED}")
        problem = doc.get("task_id", sample.get("doc_id"))
        n = len(answers[0]) if answers else 0
        c = share * n
        if abs(c - round(c)) > 1e-6:
            raise InputError(f"{printable(path)}: {shorten(problem)} has pass@1 = "
                             f"{share} of {n} answers, expected a share of them")
        groups.append((problem, [1] * round(c) + [0] * (n - round(c))))
    return groups


def of_livecodebench(problems, path):
    """[{"question_id", "graded_list": [true, ...]}] -> [(problem, right)]."""
    groups = []
    for x in problems:
        if not isinstance(x["graded_list"], list):
            raise InputError(f"{printable(path)}: a 'graded_list' that is no list, {EXPECTED}")
        # anything but true, such as the code of an error, is no pass
        groups.append((x.get("question_id"), [int(grade == 1) for grade in x["graded_list"]]))
    return groups


def results_of(words, models):
    """Words of --coding_results, FILE or MODEL=FILE -> {(benchmark, model): records}.

    A FILE alone is that of the only model. Raises InputError.
    """
    found = {}
    for word in words:
        model, path = owner(word, models)
        name, records = read_results(path)
        if (name, model) in found:
            raise InputError(f"--coding_results {word}: a second file of {name} for {model}, "
                             "expected one each")
        found[name, model] = records
    return found


def owner(word, models):
    """FILE or MODEL=FILE -> (model, path)."""
    for model in models:
        if word.startswith(f"{model}="):
            return model, word[len(model) + 1:]
    if len(models) > 1:
        raise InputError(f"--coding_results {word}: several models, expected MODEL=FILE, with a "
                         f"MODEL of {', '.join(models)}")
    return models[0], word
