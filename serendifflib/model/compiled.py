"""The U-Net compiled by torch: its small operations fused into few kernels.

Compiling takes a while and pays where a network is called thousands of times:
in long trainings and in long runs of the sampler, on a GPU. Results agree with
those of the plain network up to rounding::

    with compiled_training():
        model = SerenDiff("tuned", device="cuda").fit(data)
    scores = compiled_model(model).score(histories, candidates)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from serendifflib.diffusion.team import Team, current_team, training_as
from serendifflib.errors import ModelError
from serendifflib.io import content_hash
from serendifflib.model.serendiff import SerenDiff

STEPS_AHEAD = 16  # of noise, drawn at once for each user


def compiled(network: nn.Module, *, backend: str = "inductor") -> nn.Module:
    """A compiled view of a network; both share their weights.

    On CUDA the weights are laid out with the channels together, which is
    what the tensor cores of a GPU read.

    Args:
        network: a :class:`~serendifflib.diffusion.unet.UNet` on its device.
        backend: of ``torch.compile``; ``eager`` compiles nothing.

    Returns:
        takes and gives what ``network`` does; every new batch size is
        compiled anew.
    """
    if next(network.parameters()).is_cuda:
        network.to(memory_format=torch.channels_last)  # type: ignore
    return torch.compile(network, dynamic=False, backend=backend)  # type: ignore


def compiled_model(
    model: SerenDiff, *, backend: str = "inductor"
) -> SerenDiff:
    """A view of a fitted model that generates with a compiled network.

    On CUDA the noise of a user is drawn there, from the same seed, but it is
    other noise than the processor draws. It still derives from the history
    alone: order and batch size change nothing but the rounding.

    Args:
        model: fitted; it shares its weights with the view.
        backend: of ``torch.compile``; ``eager`` compiles nothing.

    Raises:
        ModelError: the model is not fitted.
    """
    if model.network is None:
        raise ModelError(f"{model.name}: fit it before it is compiled")
    view = _CompiledSerenDiff.__new__(_CompiledSerenDiff)
    vars(view).update(vars(model))
    view.network = compiled(model.network, backend=backend)
    return view


class _CompiledSerenDiff(SerenDiff):
    def _noise(self, items: torch.Tensor):
        if self.device.type != "cuda":
            return super()._noise(items)
        history = items[items > 0].long().numpy()
        seed = int(content_hash(self.seed, history)[:15], 16)
        generator = torch.Generator(self.device).manual_seed(seed)
        ahead: list[torch.Tensor] = []

        def draw(shape: torch.Size) -> torch.Tensor:
            if not ahead:  # one kernel for many steps of the sampler
                ahead.extend(
                    torch.randn(
                        (STEPS_AHEAD, *shape),
                        generator=generator,
                        device=self.device,
                    )
                )
            return ahead.pop()

        return draw


@dataclass(frozen=True)
class CompiledTeam(Team):
    """A team that trains compiled networks.

    Attributes:
        backend: of ``torch.compile``.
    """

    backend: str = "inductor"

    def wrap(self, network: nn.Module) -> nn.Module:
        """See :meth:`Team.wrap`; the view is compiled."""
        return compiled(super().wrap(network), backend=self.backend)


@contextmanager
def compiled_training(*, backend: str = "inductor") -> Iterator[Team]:
    """Within this context, training steps are compiled.

    It can be combined with several processes, within
    :func:`serendifflib.diffusion.distributed.together`.

    Args:
        backend: of ``torch.compile``; ``eager`` compiles nothing.

    Yields:
        this process's place in the team.
    """
    team = current_team()
    with training_as(CompiledTeam(team.rank, team.size, backend)) as found:
        yield found
