import json
import multiprocessing
import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from serendifflib.diffusion import checkpoints, training
from serendifflib.diffusion.base import PlacedItems
from serendifflib.diffusion.images import ImageLoss, grid_loss, point_grid
from serendifflib.diffusion.reports import StageReport, TrainingReport
from serendifflib.diffusion.schedule import DDPMSchedule
from serendifflib.diffusion.training import (
    TrainingSettings,
    batch_of,
    train,
)
from serendifflib.diffusion.unet import UNet, UNetSettings
from serendifflib.errors import CheckpointError, ConfigError, ModelError
from serendifflib.portrait.encoding import unit_rows
from serendifflib.portrait.portrait import Portraits

D, SIDE = 4, 4
SHORT = TrainingSettings(steps=8, batch_size=4, validate_every=2)


def data(seed=0, examples=12):
    random = np.random.default_rng(seed)
    items = random.integers(0, 21, (examples, 5))
    items[:, -1] = random.integers(1, 21, examples)  # nobody is empty
    return PlacedItems(
        Portraits(
            torch.from_numpy(items),
            torch.from_numpy(random.random((examples, 5, 2))),
        ),
        torch.from_numpy(random.integers(1, 21, (examples, 1))),
        torch.from_numpy(random.random((examples, 1, 2))),
        torch.zeros(examples, 1, 2),
    )


def vectors(seed=0):
    rows = np.random.default_rng(seed).normal(size=(21, D))
    rows[0] = 0.0
    return torch.from_numpy(unit_rows(rows.astype(np.float32)))


def network(seed=0, **changes):
    given = {"channels": D, "widths": (4, 8, 16), "condition": "film"}
    given |= {"norm": "group", "output_relu": False, **changes}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return UNet(UNetSettings(**given))


def image_loss(
    given=None, *, steps=10, predict="x0", kind="balanced", scale=1.0,
    device="cpu",
):  # fmt: skip
    """Eq. 10 on the toy data."""
    given = data() if given is None else given
    return ImageLoss(
        DDPMSchedule.linear(steps, rescale_betas=True),
        given.portraits.part(torch.arange(len(given)), device),
        given.targets.to(device),
        given.target_cells(SIDE).to(device),
        vectors().to(device),
        SIDE,
        predict,
        kind,
        scale,
    )


def run(net=None, how=SHORT, *, seed=0, given=None, device="cpu", **options):
    """Train on the toy data; returns the network and the report."""
    own = ("steps", "predict", "kind", "scale")
    parts = {name: options.pop(name) for name in own if name in options}
    given = data() if given is None else given
    net = net or network()
    report = train(
        net,
        image_loss(given, device=device, **parts),
        len(given),
        how,
        seed=seed,
        device=device,
        **options,
    )
    return net, report


def same_weights(one, other):
    pairs = zip(
        one.state_dict().items(), other.state_dict().items(), strict=True
    )
    return all(torch.equal(a, b) for (_, a), (_, b) in pairs)


# -------------------------------------------------------------------- loss


def test_the_point_stands_in_its_cell():
    grid = point_grid(
        torch.tensor([3, 5]),
        torch.tensor([[0, 2], [3, 3]]),
        vectors(),
        SIDE,
    )
    assert grid.shape == (2, D, SIDE, SIDE)
    assert torch.equal(grid[0, :, 0, 2], vectors()[3])
    assert torch.equal(grid[1, :, 3, 3], vectors()[5])
    assert grid.abs().sum() == vectors()[[3, 5]].abs().sum()


def test_both_losses_by_hand():
    """Errors of 2 at the point and 1 in each of the three other cells."""
    target = torch.zeros(2, 3, 2, 2)
    output = torch.ones(2, 3, 2, 2)
    cells = torch.tensor([[0, 1], [1, 1]])
    output[0, :, 0, 1], output[1, :, 1, 1] = 2.0, 2.0
    assert grid_loss(output, target, cells, "uniform") == pytest.approx(7 / 4)
    assert grid_loss(output, target, cells, "balanced") == pytest.approx(5 / 2)
    # the same errors elsewhere: only the balanced loss notices
    moved = grid_loss(output.flip(2), target, cells, "balanced")
    assert moved == pytest.approx(0.5 * (1 + 6 / 3))
    moved = grid_loss(output.flip(2), target, cells, "uniform")
    assert moved == pytest.approx(7 / 4)


def test_predicting_nothing_is_nearly_optimal_for_the_uniform_loss():
    """Deviation 3: with 100 cells, zeros cost 1 % or 50 % of a unit."""
    target = torch.zeros(1, D, 10, 10)
    target[0, :, 4, 4] = 1.0
    cells = torch.tensor([[4, 4]])
    zeros = torch.zeros_like(target)
    assert grid_loss(zeros, target, cells, "uniform") == pytest.approx(0.01)
    assert grid_loss(zeros, target, cells, "balanced") == pytest.approx(0.5)


def test_a_grid_of_one_cell_has_no_background():
    one, zero = torch.ones(1, D, 1, 1), torch.zeros(1, D, 1, 1)
    cells = torch.zeros(1, 2).long()
    assert grid_loss(one, zero, cells, "balanced") == pytest.approx(0.5)


@settings(max_examples=30)
@given(st.integers(0, 2**31), st.sampled_from(["uniform", "balanced"]))
def test_no_non_negative_output_gets_below_the_floor(seed, kind):
    """Deviation 2: a final ReLU cannot predict the negative half."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(8, 16, SIDE, SIDE, generator=generator)
    wild = torch.randn(noise.shape, generator=generator) * 2
    cells = torch.zeros(8, 2).long()
    best = grid_loss(noise.clamp(min=0), noise, cells, kind)
    assert best == pytest.approx(0.5, abs=0.2)
    for output in (wild, noise + 0.3 * wild, noise * 0.9):
        assert grid_loss(output.relu(), noise, cells, kind) >= best
    assert grid_loss(noise * 0.9, noise, cells, kind) < best  # without ReLU


def test_a_network_with_relu_stays_above_the_floor():
    how = replace(SHORT, steps=30, batch_size=8)
    relu = network(output_relu=True)
    _, report = run(relu, how, predict="noise", kind="uniform")
    assert min(report.losses) > 0.4
    assert np.mean(report.losses) > 0.5


# ---------------------------------------------------------------- the loop


@pytest.mark.parametrize(
    ("predict", "optimizer"),
    [("noise", "adam"), ("x0", "adamw"), ("v", "adam")],
)
def test_the_loss_falls(predict, optimizer):
    how = replace(
        SHORT,
        steps=40,
        batch_size=16,
        optimizer=optimizer,
        learning_rate=1e-2,
    )
    net, report = run(
        network(dropout=0.0), how, steps=20, predict=predict, scale=2.0
    )
    assert len(report.losses) == 40
    assert np.mean(report.losses[-10:]) < 0.85 * np.mean(report.losses[:5])
    assert not net.training
    assert report.best_step == 40 and report.seconds > 0
    assert (report.stopped, report.steps, report.examples) == ("cap", 40, 12)
    assert report.parameters == sum(p.numel() for p in net.parameters())


def test_a_seed_decides_everything_and_leaves_the_world_alone():
    before = torch.get_rng_state()
    one, first = run()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(12345)
    two, second = run()
    assert same_weights(one, two) and first.losses == second.losses
    other, third = run(seed=1)
    assert not same_weights(one, other) and first.losses != third.losses


class Recorder(torch.nn.Module):
    """Notes what it is given; predicts a constant that can be learned."""

    def __init__(self):
        super().__init__()
        self.bias = torch.nn.Parameter(torch.zeros(1))
        self.seen = []

    def forward(self, x, t, portrait, counts):
        self.seen.append((x, t, portrait, counts, self.training))
        return self.bias.expand_as(x)

    def __deepcopy__(self, memo):
        return Recorder()


def test_the_network_gets_noisy_points_and_scaled_portraits():
    net = Recorder()
    given, scale = data(examples=1), 3.0
    how = replace(SHORT, steps=4, batch_size=2)
    parts = {"steps": 1000, "scale": scale}
    run(net, how, given=given, validate=lambda n: 0.0, **parts)
    assert len(net.seen) == 4 and all(seen[-1] for seen in net.seen)
    portrait, counts = given.portraits.dense(
        torch.tensor([0, 0]), vectors(), SIDE
    )
    cells = given.target_cells(SIDE)[[0, 0]]
    x0 = scale * point_grid(given.targets[[0, 0]], cells, vectors(), SIDE)
    schedule = DDPMSchedule.linear(1000)
    for x, t, seen, seen_counts, _ in net.seen:
        torch.testing.assert_close(seen, portrait * scale)
        assert torch.equal(seen_counts, counts)
        assert ((t >= 0) & (t < 1000)).all()
        # what is left without the point is noise of variance 1 - a-bar
        signal = schedule.alpha_bar.sqrt()[t].float()[:, None, None, None]
        rest = (x - signal * x0) / (1 - signal.square()).sqrt()
        assert 0.5 < float(rest.var()) < 2.0
    steps = torch.cat([seen[1] for seen in net.seen])
    assert len(steps.unique()) > 4
    noises = [seen[0].sum() for seen in net.seen]
    assert len({float(n) for n in noises}) == 4


def test_ema_is_the_mean_of_the_weights():
    """Up to 200 steps a plain mean over all of them."""
    snapshots = []

    class Spy(Recorder):
        def forward(self, *arguments):
            snapshots.append(self.bias.item())
            return super().forward(*arguments)

    net = Spy()
    how = replace(SHORT, steps=7, ema=True)
    run(net, how, predict="noise", kind="uniform")
    plain = Spy()
    run(plain, replace(how, ema=False), predict="noise", kind="uniform")
    # weights after steps 1..7: those seen at steps 2..7 and the last ones
    after = [*snapshots[1:7], plain.bias.item()]
    assert net.bias.item() == pytest.approx(np.mean(after), rel=1e-5)


# ---------------------------------------------------------- early stopping


def scripted(scores):
    """A validation that returns these scores and keeps the weights."""
    left, seen = list(scores), []

    def validate(net):
        assert not net.training
        seen.append({k: v.clone() for k, v in net.state_dict().items()})
        return left.pop(0)

    return validate, seen


@pytest.mark.parametrize("ema", [False, True])
def test_early_stopping_keeps_the_best_weights(ema):
    validate, seen = scripted([0.1, 0.1, 0.5, 0.5, 0.2, 0.9, 0.9])
    how = replace(SHORT, steps=100, patience=2, ema=ema)
    net, report = run(how=how, validate=validate)
    found = [(0, 0.1), (2, 0.1), (4, 0.5), (6, 0.5), (8, 0.2)]
    assert report.validations == found
    assert report.best_step == 4 and len(report.losses) == 8
    assert report.stopped == "patience" and report.best_value == 0.5
    for name, value in net.state_dict().items():
        assert torch.equal(value, seen[2][name])


@pytest.mark.parametrize("ema", [False, True])
def test_training_that_only_hurts_is_undone(ema):
    validate, seen = scripted([0.9, 0.1, 0.2, 0.3, 0.4])
    net, report = run(how=replace(SHORT, patience=9, ema=ema),
                      validate=validate)  # fmt: skip
    assert report.best_step == 0 and report.stopped == "cap"
    assert same_weights(net, network())


def test_a_validation_score_that_is_no_number_is_an_error():
    """Before, NaN validated as perfect."""
    validate, _ = scripted([0.1, float("nan")])
    with pytest.raises(ModelError, match="validation score of step 2 is not"):
        run(how=replace(SHORT, patience=9), validate=validate, name="M")


def test_without_patience_the_last_weights_stay():
    validate, seen = scripted([0.9, 0.9, 0.1, 0.1, 0.1])
    net, report = run(validate=validate)
    assert len(report.losses) == 8 and report.best_step == 8
    assert torch.equal(net.state_dict()["out.bias"], seen[-1]["out.bias"])
    plain, _ = run()
    assert same_weights(net, plain)  # looking changes nothing


def test_the_last_step_is_validated_too():
    validate, seen = scripted([0.1, 0.1, 0.2, 0.3])
    _, report = run(how=replace(SHORT, steps=5, patience=5), validate=validate)
    assert [step for step, _ in report.validations] == [0, 2, 4, 5]
    assert report.best_step == 5


# ------------------------------------------------------------- checkpoints


class Stop(Exception):
    pass


def stopping(at):
    """A validation that ends the program in the ``at``-th call."""
    calls = []

    def validate(net):
        calls.append(1)
        if len(calls) == at:
            raise Stop
        return float(net.out.bias.detach().sum())

    return validate


HOWS = [
    (replace(SHORT, patience=9), {}),
    (replace(SHORT, ema=True, optimizer="adamw", patience=9, warmup=3), {}),
    (SHORT, {"predict": "noise", "kind": "uniform"}),
]
ALWAYS = {"checkpoint_seconds": 0.0}  # after every step


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("norm", ["group", "batch"])
def test_a_resumed_run_equals_one_that_was_not_stopped(tmp_path, how, norm):
    path, (how, parts) = tmp_path / "run.safetensors", how
    whole, expected = run(
        network(norm=norm), how, validate=stopping(0), **parts
    )
    options = {"checkpoint": path, **ALWAYS, **parts}
    with pytest.raises(Stop):
        run(network(norm=norm), how, validate=stopping(4), **options)
    assert path.exists()
    # other initial weights: all of them come from the file
    net, report = run(
        network(seed=9, norm=norm), how, validate=stopping(0), **options
    )
    assert same_weights(net, whole)
    assert report.losses == expected.losses
    assert report.validations == expected.validations
    assert report.best_step == expected.best_step
    assert not path.exists()  # a finished run needs none


def _train_and_die(path):
    def validate(net):
        if path.exists():
            os.kill(os.getpid(), signal.SIGKILL)
        return 0.0

    run(validate=validate, checkpoint=path, **ALWAYS)


def test_a_killed_process_is_resumed(tmp_path):
    path = tmp_path / "run.safetensors"
    process = multiprocessing.get_context("fork").Process(
        target=_train_and_die, args=(path,)
    )
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert os.listdir(tmp_path) == [path.name]
    asked = []
    net, report = run(
        network(seed=9),
        validate=lambda n: asked.append(1) or 0.0,
        checkpoint=path,
    )
    whole, expected = run()
    assert same_weights(net, whole) and report.losses == expected.losses
    assert len(asked) == 4  # after steps 2, 4, 6 and 8; not at the start


def test_checkpoints_come_by_the_clock(tmp_path, monkeypatch):
    """With the default profile of 150 steps there was none, ever."""
    path, now, writes = tmp_path / "run.safetensors", [0.0], []
    real = training.save_checkpoint

    def save(*arguments):
        writes.append(now[0])
        real(*arguments)

    def validate(net):
        now[0] += 8.0
        return 0.0

    monkeypatch.setattr(training.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(training, "save_checkpoint", save)
    how = replace(SHORT, steps=9, validate_every=1)
    run(how=how, validate=validate, checkpoint=path, keep_checkpoint=True)
    # started at 0, first look at 8: steps end at 16, 24, 32, ...; once the
    # training is over it is written again, before anything else can fail
    assert writes == [24.0, 48.0, 72.0, 80.0]


def test_a_slow_disk_is_asked_less_often(tmp_path, monkeypatch):
    path, now, writes = tmp_path / "run.safetensors", [0.0], []

    def save(*arguments):
        writes.append(now[0])
        now[0] += 10.0  # to write it

    def validate(net):
        now[0] += 10.0
        return 0.0

    monkeypatch.setattr(training.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(training, "save_checkpoint", save)
    how = replace(SHORT, steps=14, validate_every=1)
    run(how=how, validate=validate, checkpoint=path)
    # 10 seconds of writing ask for 100 seconds of work
    assert writes == [20.0, 130.0]


@pytest.mark.parametrize("saved", [True, False])
def test_ctrl_c_keeps_what_was_done(tmp_path, saved):
    path = tmp_path / "run.safetensors" if saved else None

    def interrupt(net):
        if now := len(calls):
            os.kill(os.getpid(), signal.SIGINT)  # in the middle of a look
        calls.append(now)
        return 0.0

    calls = []
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run(validate=interrupt, checkpoint=path)
    assert signal.getsignal(signal.SIGINT) is before
    assert len(calls) == 2  # the look at step 2 was finished, and no more
    if not saved:
        return
    with safe_open(path, framework="pt") as stored:
        header = json.loads(stored.metadata()["serendiff"])["header"]
    assert len(header["report"]["losses"]) == 2
    net, report = run(network(seed=9), validate=lambda n: 0.0, checkpoint=path)
    whole, expected = run(validate=lambda n: 0.0)
    assert same_weights(net, whole) and report.losses == expected.losses


def test_a_second_ctrl_c_stops_at_once():
    calls = []

    def impatient(net):
        calls.append(1)
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        calls.append(2)
        return 0.0

    with pytest.raises(KeyboardInterrupt):
        run(validate=impatient)
    assert calls == [1]


@pytest.fixture
def stopped(tmp_path):
    """The checkpoint of a run that stopped after step 6."""
    path = tmp_path / "run.safetensors"
    with pytest.raises(Stop):
        run(validate=stopping(4), checkpoint=path, **ALWAYS)
    return path


def flip_weight(path):
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


def cut(path):
    path.write_bytes(path.read_bytes()[:-20])


def rubbish(path):
    path.write_bytes(b"\x00" * 100)


def nothing(path):
    path.write_bytes(b"")


def without_header(path):
    save_file({"network.out.bias": torch.zeros(D)}, path)


def edit(path, change):
    """Another header; tensors and checksum stay."""
    with safe_open(path, framework="pt") as stored:
        signed = json.loads(stored.metadata()["serendiff"])
        tensors = {k: stored.get_tensor(k) for k in stored.keys()}
    change(signed["header"])
    save_file(tensors, path, metadata={"serendiff": json.dumps(signed)})


def other_loss(path):
    edit(path, lambda header: header["report"].update(losses=[0.0] * 5))


def header_of_a_list(path):
    save_file({}, path, metadata={"serendiff": "[]"})


@pytest.mark.parametrize(
    "damage",
    [
        flip_weight,
        cut,
        rubbish,
        nothing,
        without_header,
        other_loss,
        header_of_a_list,
    ],
)
def test_a_damaged_checkpoint_is_refused_and_stays(stopped, damage):
    damage(stopped)
    content = stopped.read_bytes()
    net = network(seed=5)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    with pytest.raises(CheckpointError, match="delete it") as caught:
        run(net, checkpoint=stopped)
    assert str(stopped) in str(caught.value)
    assert stopped.read_bytes() == content
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 1},
        {"origin": "other data"},
        {"how": replace(SHORT, learning_rate=1e-4)},
        {"how": replace(SHORT, steps=9)},
        {"net": network(widths=(8, 16, 32))},
        {"net": network(condition="cross")},
    ],
)
def test_a_checkpoint_of_another_run_is_refused(stopped, other):
    with pytest.raises(CheckpointError, match="another run"):
        run(checkpoint=stopped, **other)
    assert stopped.exists()


def test_a_checkpoint_of_another_version_is_refused(stopped, monkeypatch):
    monkeypatch.setattr(checkpoints, "CHECKPOINT_VERSION", 99)
    with pytest.raises(CheckpointError, match="another version"):
        run(checkpoint=stopped)


# --------------------------------------------------------------- bad input


def test_divergence_is_said_at_once_and_not_saved(tmp_path):
    path = tmp_path / "run.safetensors"
    how = replace(SHORT, learning_rate=float("inf"))
    with pytest.raises(ModelError, match="diverged in step 2.*smaller"):
        run(how=how, checkpoint=path, **ALWAYS)
    with safe_open(path, framework="pt") as stored:
        header = json.loads(stored.metadata()["serendiff"])["header"]
    assert len(header["report"]["losses"]) == 1


def test_nothing_to_train_on_is_refused():
    with pytest.raises(ConfigError, match="M: stage 's': no training ex"):
        train(network(), None, 0, SHORT, seed=0, name="M", stage="s")


def test_unknown_losses_are_refused():
    with pytest.raises(ConfigError, match="'l1'.*uniform, balanced"):
        image_loss(kind="l1")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizer": "sgd"}, "'sgd'.*adam, adamw"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"validate_every": -1}, "validate_every must be at least 1"),
    ],
)
def test_unknown_settings_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        TrainingSettings(**changes)


def test_a_report_survives_json():
    report = StageReport("s", 3, 7, [0.5, 0.25], [(2, 0.1)], 2, "cap", 1.5)
    plain = json.loads(json.dumps(report.__dict__))
    assert StageReport.from_json(plain) == report
    assert TrainingReport(7, (report, report), 4.0).steps == 4
    assert np.isnan(StageReport().best_value)


# ----------------------------------------------------------------- batches


@given(
    examples=st.integers(1, 9),
    size=st.integers(1, 12),
    seed=st.integers(0, 2**31),
)
def test_each_round_sees_each_example_once(examples, size, seed):
    steps = -(-3 * examples // size)
    seen = torch.cat([batch_of(examples, size, seed, n) for n in range(steps)])
    assert len(seen) == steps * size
    for start in range(0, 3 * examples, examples):
        one = seen[start : start + examples]
        assert sorted(one.tolist()) == list(range(examples))


def test_warm_up_starts_small():
    """The loss falls by one per unit: a step of Adam is its rate."""
    moved = []
    for warmup in (0, 10):
        point = torch.nn.Linear(1, 1, bias=False)
        start = point.weight.item()
        how = TrainingSettings(steps=1, warmup=warmup, learning_rate=0.1)
        train(point, lambda net, *_: -net.weight.sum(), 4, how, seed=0)
        moved.append(point.weight.item() - start)
    assert moved == pytest.approx([0.1, 0.01], rel=1e-3)


@pytest.mark.parametrize("stop", [False, True])
def test_frozen_weights_are_left_alone(tmp_path, stop):
    """A language model inside a rival is neither trained nor copied.

    Its input and its output share one matrix, as language models have it.
    """

    def make():
        torch.manual_seed(0)
        net = torch.nn.ModuleList(
            [torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)]
        )
        net.append(torch.nn.Linear(2, 1))
        net[1].weight = net[0].weight
        net[:2].requires_grad_(False)
        return net

    def look(view):
        looks.append(1)
        if stop and len(looks) == 3:
            raise Stop
        return -float(view[2].weight.abs().sum())

    def go(net):
        return train(
            net,
            lambda view, *_: view[2](view[1](view[0](torch.ones(2)))).sum(),
            5,
            replace(SHORT, optimizer="adamw", weight_decay=0.5, patience=3),
            seed=0,
            validate=look,
            checkpoint=tmp_path / "run.safetensors",
            checkpoint_seconds=0.0,
            keep_checkpoint=True,
        )

    looks, net = [], make()
    frozen = net[0].weight.clone()
    if stop:
        with pytest.raises(Stop):
            go(net)
        net = make()
    report = go(net)
    assert torch.equal(net[0].weight, frozen)
    assert torch.equal(net[1].weight, frozen)
    assert report.parameters == 3
    with safe_open(tmp_path / "run.safetensors", framework="pt") as stored:
        names = [key.split(".") for key in stored.keys()]
    parts = {part for kind, part, *_ in names if kind in ("network", "best")}
    assert parts == {"2"}
