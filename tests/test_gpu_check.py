"""The check for a first GPU runs through on a CPU, and notices what is broken."""
import json

import pytest
import torch

import influence
import sampling
from data import InputError
from engine import varlen
from tools import gpu_check

# whole runs
pytestmark = pytest.mark.slow


@pytest.fixture
def bench():
    b = gpu_check.Bench(gpu_check.TINY, torch.device("cpu"), 1000)
    b.rates = {"flops": 1e9, "bytes": 1e9, "host": 1e9}
    return b


def looks(b, name):
    """One check -> the lines of it that say LOOK."""
    gpu_check.one(b, name, gpu_check.FUNCTIONS[name])
    return [line["what"] for line in b.lines if line["verdict"] == "LOOK"]


def test_all_of_it_runs_on_a_cpu_and_every_expectation_is_given_a_reason(tmp_path, capsys):
    path = tmp_path / "check.json"
    assert gpu_check.main(["--tiny", "--json", str(path)]) == 0
    found = json.loads(path.read_text())
    assert [x for x in found["lines"] if x["verdict"] == "LOOK"] == []
    assert {x["check"] for x in found["lines"]} == set(gpu_check.FUNCTIONS)
    assert set(gpu_check.FUNCTIONS) == set(gpu_check.CHECKS)
    assert all(bool(x["verdict"]) == bool(x["wanted"]) for x in found["lines"])
    said = capsys.readouterr().out
    assert "[1/10] device; about 465 s left" in said and "; 0 to look at; also in" in said


def test_the_seconds_fit_into_eight_minutes():
    assert sum(gpu_check.CHECKS.values()) < 480


def test_rows_that_see_their_neighbours_are_noticed(bench, monkeypatch):
    original = varlen.by_row

    def leaky(query, key, value, ends, window, scale):
        return original(query, key, value, [ends[0], ends[-1]], window, scale)

    # refused before it trains
    monkeypatch.setattr(varlen, "by_row", leaky)
    assert looks(bench, "rows") == ["failed"]


def test_a_score_that_is_not_the_definitions_is_noticed(bench, monkeypatch):
    original = influence.scaled_Gamma

    def wrong(g, v, k, beta2, eps, out=None):
        # the history is forgotten
        return original(g, 0 * v, k, beta2, eps, out=out)

    monkeypatch.setattr(influence, "scaled_Gamma", wrong)
    assert [what.split(" -")[0] for what in looks(bench, "scores")][:2] == [
        "s_hat fp32, hooks", "s_hat fp32, blocks"]


def test_a_sampler_at_another_temperature_is_noticed(bench, monkeypatch):
    original = sampling.choose

    def hotter(logits, u, temperature, top_p, top_k):
        return original(3 * logits, u, temperature, top_p, top_k)

    monkeypatch.setattr(sampling, "choose", hotter)
    assert "sampler - trainer: log-probs, mean and largest" in looks(bench, "sampling")


def test_a_role_that_comes_back_changed_is_noticed(bench, monkeypatch):
    original = gpu_check.Policy.move

    def careless(self, place, awake):
        original(self, place, awake)
        with torch.no_grad():
            self.params[0].mul_(1.001)

    monkeypatch.setattr(gpu_check.Policy, "move", careless)
    assert looks(bench, "turns") == ["unchanged, and an update afterwards"]


def test_without_time_a_check_is_skipped_and_says_so(bench):
    bench.seconds = -1
    assert looks(bench, "scores") == ["skipped"]


def test_what_is_left_goes_by_the_pace_so_far(bench):
    bench.start -= 2 * gpu_check.CHECKS["device"]
    rest = sum(gpu_check.CHECKS.values()) - gpu_check.CHECKS["device"]
    assert gpu_check.left(["device"], bench) == pytest.approx(2 * rest, rel=0.01)


def test_without_a_gpu_it_is_one_line(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="no GPU.*--tiny"):
        gpu_check.main([])
