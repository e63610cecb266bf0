"""Two processes on a processor (gloo) do what one does.

The script below runs alone, under accelerate's launcher and under what
accelerate's ``notebook_launcher`` starts on a machine without GPUs.
"""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from serendifflib.diffusion.distributed import (
    Team,
    current_team,
    shared_score,
    together,
)

SCRIPT = '''
import json, sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, {tests!r})


def work():
    import torch
    from test_training import SHORT, network, run
    from serendifflib.diffusion.distributed import shared_score, together

    class Model:
        """Scores that tell which users were asked for here."""

        asked = 0

        def score(self, histories, candidates):
            Model.asked += len(histories)
            return histories[:, :1] * 100.0 + candidates

    how = replace(SHORT, steps=6, ema=True, patience=3)
    folder = Path({folder!r})
    with together(cpu=True) as team:
        net, report = run(
            network(dropout=0.0), how, validate=lambda n: 0.1,
            checkpoint=folder / "run.safetensors", checkpoint_seconds=0.0,
        )
        _, again = run(network(dropout=0.2), how)  # dropout: other masks
        histories = torch.arange(14).view(7, 2)
        candidates = torch.arange(21).view(7, 3)
        scores = shared_score(Model(), histories, candidates)
    found = dict(
        rank=team.rank,
        size=team.size,
        losses=report.losses,
        dropped=again.losses,
        weights=[float(p.detach().double().sum()) for p in net.parameters()],
        scores=scores.tolist(),
        asked=Model.asked,
    )
    (folder / f"{{team.size}}-{{team.rank}}.json").write_text(
        json.dumps(found)
    )


if __name__ == "__main__":
    {start}
'''
DEBUG = "from accelerate import debug_launcher; debug_launcher(work, (), 2)"


def write(folder, start="work()"):
    path = folder / "script.py"
    tests = str(Path(__file__).parent)
    path.write_text(
        SCRIPT.format(tests=tests, folder=str(folder), start=start)
    )
    return path


def go(command, **variables):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
    return subprocess.Popen(
        [str(part) for part in command],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(*processes):
    for process in processes:
        try:
            output, _ = process.communicate(timeout=180)
        except subprocess.TimeoutExpired:
            for each in processes:
                each.kill()
            raise
        assert process.returncode == 0, output[-3000:]


def results(folder, size):
    return [
        json.loads((folder / f"{size}-{rank}.json").read_text())
        for rank in range(size)
    ]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    finish(go([sys.executable, write(folder)]))
    (found,) = results(folder, 1)
    return found


def check(folder, alone):
    one, two = results(folder, 2)
    assert (one["rank"], two["rank"]) == (0, 1)
    assert one["losses"] == two["losses"]
    assert one["losses"] == pytest.approx(alone["losses"], rel=1e-5)
    assert one["weights"] == two["weights"]
    assert one["weights"] == pytest.approx(alone["weights"], abs=1e-3)
    assert one["dropped"] != pytest.approx(alone["dropped"], rel=1e-5)
    assert one["scores"] == two["scores"] == alone["scores"]
    assert (one["asked"], two["asked"], alone["asked"]) == (4, 4, 7)
    assert not (folder / "run.safetensors").exists()


@pytest.mark.slow
def test_accelerate_launch(tmp_path, alone):
    """Two ``accelerate launch`` that know each other as under mpirun."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    script = write(tmp_path)
    launch = [
        sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch",
        "--cpu", "--num_processes", 2, "--num_machines", 1,
        "--mixed_precision", "no", "--dynamo_backend", "no",
        "--main_process_port", port, script,
    ]  # fmt: skip
    finish(
        *(
            go(
                launch,
                OMPI_COMM_WORLD_SIZE="2",
                OMPI_COMM_WORLD_RANK=str(rank),
                OMPI_COMM_WORLD_LOCAL_RANK=str(rank),
                OMPI_COMM_WORLD_LOCAL_SIZE="2",
            )
            for rank in range(2)
        )
    )
    check(tmp_path, alone)


def test_from_a_notebook(tmp_path, alone):
    finish(go([sys.executable, write(tmp_path, DEBUG)]))
    check(tmp_path, alone)


def test_one_process_is_as_usual():
    class Model:
        def score(self, histories, candidates):
            return histories, candidates

    histories, candidates = torch.ones(2, 3), torch.ones(2, 4)
    with together(cpu=True) as team:
        assert team == Team(0, 1) == current_team()
        found = shared_score(Model(), histories, candidates)
    assert found[0] is histories and found[1] is candidates
