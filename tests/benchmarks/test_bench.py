"""Benchmarks: what is counted is right, and records keep what they should."""

import json
import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import __main__ as command
from benchmarks import (
    encode,
    fit,
    measure,
    network,
    scale,
    systems,
    targets,
)
from benchmarks import (
    record as bench,
)
from benchmarks.measure import Setting, slope
from benchmarks.record import BENCHES, read_record, run_bench
from serendifflib.data.world import World
from serendifflib.errors import CacheError, ConfigError
from serendifflib.experiments.prepared import open_bench
from serendifflib.profiles import PROFILES

CPU = torch.device("cpu")
QUICK = Setting(quick=True)


def test_what_is_not_known():
    with pytest.raises(
        ConfigError, match="'portrait': choose one of fit, encode"
    ):
        run_bench("portrait")
    with pytest.raises(ConfigError, match="unknown device 'tpu'"):
        run_bench("fit", device="tpu")


@pytest.mark.skipif(
    torch.cuda.is_available(), reason="this machine has a CUDA device"
)
def test_a_device_that_is_not_there():
    with pytest.raises(ConfigError, match="no CUDA device here: choose cpu"):
        run_bench("fit", device="cuda")


@pytest.fixture
def fake_benches(monkeypatch):
    """Two benchmarks that cost nothing."""
    calls = []

    def make(name):
        def run(setting):
            calls.append((name, setting))
            return {"value": len(calls)}

        return run

    for name in list(BENCHES):
        monkeypatch.delitem(BENCHES, name)
    for name in ("one", "two"):
        monkeypatch.setitem(BENCHES, name, make(name))
    return calls


def test_the_record_names_machine_and_circumstances(fake_benches, tmp_path):
    path = tmp_path / "record.json"
    record = run_bench("all", path, device="cpu", quick=True)
    assert [name for name, _ in fake_benches] == ["one", "two"]
    assert all(setting == QUICK for _, setting in fake_benches)
    assert record["schema_version"] == bench.SCHEMA_VERSION
    assert record["device"].startswith("cpu")
    assert record["machine"]["cores"] == os.cpu_count()
    run = record["results"]["one"]["run"]
    assert run["quick"] is True and run["seconds"] >= 0
    assert run["threads"] == torch.get_num_threads()
    assert run["versions"]["torch"] == torch.__version__
    assert len(run["load_average"]) == 2
    assert str(tmp_path) not in path.read_text()


def test_what_is_not_measured_again_stays(fake_benches, tmp_path):
    path = tmp_path / "record.json"
    run_bench("all", path, device="cpu")
    record = run_bench("two", path, device="cpu")
    values = {k: v["value"] for k, v in record["results"].items()}
    assert values == {"one": 1, "two": 3}


def test_another_machine_s_figures_do_not_stay(fake_benches, tmp_path):
    path = tmp_path / "record.json"
    run_bench("all", path, device="cpu")
    record = json.loads(path.read_text())
    record["machine"]["processor"] = "another"
    path.write_text(json.dumps(record))
    assert set(run_bench("two", path, device="cpu")["results"]) == {"two"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is no benchmark record"),
        ("[]", "is no benchmark record"),
        ('{"schema_version": 1}', "is no benchmark record"),
        ('{"schema_version": 1, "results": 3}', "is no benchmark record"),
        ('{"schema_version": 99, "results": {}}', "is of schema 99"),
    ],
)
def test_another_file_is_not_overwritten(
    fake_benches, tmp_path, content, message
):
    path = tmp_path / "record.json"
    path.write_text(content)
    with pytest.raises(ConfigError, match=message):
        run_bench("one", path)
    assert path.read_text() == content and not fake_benches


def test_without_a_path_nothing_is_written(
    fake_benches, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    run_bench("one")
    assert not list(tmp_path.iterdir())


def test_record_that_cannot_be_written(fake_benches, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(CacheError, match="record.json"):
        run_bench("one", tmp_path / "file" / "record.json")


def test_the_command(fake_benches, tmp_path, capsys):
    path = tmp_path / "deep" / "record.json"
    assert command.main(["two", "--json", str(path), "--quick"]) == 0
    assert set(read_record(path)["results"]) == {"two"}
    assert fake_benches[0][1].quick
    assert command.main(["three"]) == 2
    assert "error: unknown benchmark 'three'" in capsys.readouterr().err


# -------------------------------------------------------------- measuring


def test_work_is_timed_by_both_clocks():
    calls = []
    found = measure.timed(lambda: calls.append(1), 0.001)
    assert 0 < found["q1_s"] <= found["median_s"] <= found["q3_s"]
    assert found["repeats"] >= 1 and "cpu_median_s" in found
    assert len(calls) > 2
    assert measure.once(calls.clear)["peak_gib"] > 0 and not calls


@given(st.floats(-2, 3), st.floats(0.1, 100))
def test_the_slope_is_the_exponent(power, scale):
    sizes = [1, 2, 4, 8]
    found = slope(sizes, [scale * size**power for size in sizes])
    assert found == pytest.approx(power, abs=1e-6)


def test_the_matrix_rate_is_operations_over_seconds(monkeypatch):
    found = {"median_s": 0.5, "cpu_median_s": 0.25}
    monkeypatch.setattr(measure, "timed", lambda *_, **__: found)
    rate = measure.matrix_rate(CPU, torch.float32, quick=True)
    assert rate == {"wall": 2 * 512**3 / 0.5, "cpu": 2 * 512**3 / 0.25}
    assert measure.copy_rate(CPU, quick=True) == 2 * 4 * 2**22 / 0.5


def test_operations_by_hand():
    left, right = torch.ones(3, 5), torch.ones(5, 7)
    assert measure.count_flops(lambda: left @ right) == 2 * 3 * 5 * 7


# --------------------------------------------------------------- networks


def test_a_step_costs_about_three_forward_passes():
    net = network.new_network("paper", quick=True)
    denoise = network.denoiser(net, 2, CPU)
    x, t = torch.zeros(2, 384, 10, 10), torch.zeros(2, dtype=torch.long)
    forward = measure.count_flops(lambda: denoise(x, t))
    # the first layer, large in so small a network, passes no gradient on
    ratio = network.step_flops(net, 2) / forward
    assert 2.0 < ratio < 3.0
    assert network.step_flops(net, 6) == 3 * network.step_flops(net, 2)
    assert all(p.grad is None for p in net.parameters())


def test_the_paper_s_network_has_the_paper_s_size():
    with torch.device("meta"):
        net = network.new_network("paper")
        x = torch.zeros(1, 384, 10, 10)
        given = x, torch.zeros(1), x, torch.zeros(1, 10, 10)
        flops = measure.count_flops(lambda: net(*given))
    assert 165e6 < network.parameters(net) < 185e6
    assert flops == pytest.approx(3.85e9, rel=0.1)


def test_neighbours_that_differ_are_seen():
    random = np.random.default_rng(0)
    one, other = random.normal(size=(2, 40, 8))
    assert encode._agreement(one, one) == 1.0
    assert encode._agreement(one, other) < 0.6


def test_slopes_of_operations_are_those_of_appendix_c():
    found = scale.complexity(QUICK)
    ours, rivals = found["SerenDiff"], found["attention"]
    assert ours["L"]["flops_slope"] == pytest.approx(2.0, abs=0.05)
    assert ours["d"]["flops_slope"] == pytest.approx(2.0, abs=0.05)
    assert ours["n"]["flops_slope"] == pytest.approx(0.0, abs=0.01)
    assert 1.0 < rivals["n"]["flops_slope"] < 2.0
    assert rivals["n"]["last_flops_slope"] > rivals["n"]["flops_slope"]
    assert 1.0 < rivals["d"]["flops_slope"] < 2.0
    json.dumps(found, allow_nan=False)


def test_attention_s_operations_are_counted_as_torch_counts_them():
    _, ours = scale._attention_call(16, 12)
    with torch.random.fork_rng():
        block = scale.Block(16, 1, 16, 0.0).eval()
    x, mask = torch.ones(1, 12, 16), torch.ones(1, 1, 12, 12).bool()
    with (
        torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH),
        torch.no_grad(),
    ):
        counted = measure.count_flops(lambda: block(x, mask))
    assert ours == counted


def test_world_slopes_record(monkeypatch):
    monkeypatch.setattr(scale, "FACTORS", (1, 2))
    found = scale.world_slopes(QUICK)
    for name in ("co-occurrence", "portrait per user"):
        assert len(found[name]["seconds"]) == 2
        assert min(found[name]["seconds"]) > 0
    json.dumps(found, allow_nan=False)


def test_a_system_is_timed(tiny_bench):
    for name in ("SASRec", "SerenDiff"):
        found = systems.time_system(name, tiny_bench, steps=2, users=3)
        assert found["train_seconds"] > 0
        assert found["inference_seconds"] > 0
        assert found["steps"] >= 2
        assert found["parameters"] > 1000
    with pytest.raises(ConfigError, match="unknown system 'GRU4Rec'"):
        systems.time_system("GRU4Rec", tiny_bench)


@pytest.fixture
def tiny_bench(word_encoder, empty_cache):
    profile = replace(PROFILES["smoke"], width=8, test_users=10)
    return open_bench(
        World("strong", n_users=60, n_items=200, seed=4).interactions(),
        profile=profile,
        encoder=word_encoder,
        n_candidates=50,
    )


def test_a_fit_is_measured_part_by_part():
    found = fit.bench_fit(QUICK)
    for part in fit.LIMITS:
        assert found[part]["seconds"] > 0 and found[part]["peak_gib"] > 0
    assert found["peak_gib"] >= found["tuned"]["peak_gib"]
    json.dumps(found, allow_nan=False)


def test_networks_are_measured():
    found = {
        "train": network.bench_train(QUICK),
        "sample": network.bench_sample(QUICK),
    }
    json.dumps(found, allow_nan=False)
    for target in targets.targets("cpu"):
        if target.part in found:
            assert targets._at(found[target.part], target.value) > 0, target


def some_record(**changes):
    run = {"quick": False} | changes
    return {
        "results": {
            "fit": {
                "prepare": {"seconds": 10.0, "cpu_seconds": 9.0},
                "tuned": {"seconds": 601.0, "cpu_seconds": 601.0},
                "run": run,
            },
            "sample": {
                "presets": {
                    "tuned": {
                        "one_call_per_instance_s": 0.05,
                        "one_call_per_instance_cpu_s": 0.04,
                    }
                },
                "run": run,
            },
        }
    }


def test_targets_are_compared():
    card = targets.scorecard(some_record()).set_index("quantity")
    met = card["met"]
    assert met["preparing a fold of Books, s"] == "yes"
    assert met[fit.LIMITS["tuned"][0]] == "no"
    assert met["share of the matrix rate"] == "not recorded"
    one = card.loc["one call per instance, s"]
    assert (one["measured"], one["by processor time"]) == (0.05, 0.04)
    assert one["target"] == "≤ 0.06" and one["met"] == "yes"


def test_waiting_is_told_from_computing():
    record = some_record()
    tuned = record["results"]["sample"]["presets"]["tuned"]
    for wall, cpu, verdict in (
        (0.5, 0.05, "by processor time"),
        (0.5, 0.07, "no"),
        (0.05, 0.07, "yes"),
    ):
        tuned["one_call_per_instance_s"] = wall
        tuned["one_call_per_instance_cpu_s"] = cpu
        card = targets.scorecard(record).set_index("quantity")
        assert card.loc["one call per instance, s", "met"] == verdict


@pytest.mark.parametrize("record", [None, {}, some_record(quick=True)])
@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_what_is_not_recorded_meets_nothing(record, kind):
    card = targets.scorecard(record, kind)
    assert set(card["met"]) == {"not recorded"}
    assert card["measured"].isna().all()


def test_what_is_recorded_is_a_record(monkeypatch, tmp_path):
    for kind in ("cpu", "cuda", "cpu-bfloat16"):
        assert targets.recorded_bench(kind)["results"]
    monkeypatch.setattr(targets, "project_root", lambda: tmp_path)
    assert targets.recorded_bench() is None
