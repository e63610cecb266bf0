"""Masked diffusion over tokens: its masks, table, draws, and what it learns.

The toy has one user and two answers: tokens (0, 0, 1) and (3, 3, 2), each
half of the time. Its mean, and every product of its marginals, also believes
in (0, 3, 1) and the like, which never happens.
"""

import itertools
import math

import pytest
import torch

from serendifflib.diffusion.masking import (
    Memory,
    TokenNetwork,
    draw,
    draw_masks,
    log_table,
    masked_loss,
    thin,
)

SIZES = (4, 4, 3)
ANSWERS = torch.tensor([[0, 0, 1], [3, 3, 2]])


def all_orders(length):
    return tuple(itertools.permutations(range(length)))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def network_of(sizes=SIZES, **options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = TokenNetwork(sizes, 5, 4, width=16, heads=2, **options)
        for head in network.heads:  # not the uniform one that it starts as
            torch.nn.init.normal_(head.weight)
            torch.nn.init.normal_(head.bias)
    return network.eval()


def portraits(users=3, items=6, seed=0):
    """Points, cells and which places hold an item; the last user has two."""
    source = seeded(seed)
    points = torch.randn(users, items, 5, generator=source)
    cells = torch.randint(0, 4, (users, items, 2), generator=source)
    real = torch.ones(users, items, dtype=torch.bool)
    real[-1, :-2] = False
    return points, cells, real


class Known:
    """A stand-in network that gives a known joint's own conditionals."""

    def __init__(self, joint):
        self.joint, self.sizes = joint, tuple(joint.shape)

    def answer(self, states, memory, which=None):
        asked = range(len(self.sizes)) if which is None else (which,)
        shape = (*states.shape[:2], -1)
        rows = states.flatten(0, 1)
        return [
            torch.stack([self.conditional(row, r) for row in rows]).view(shape)
            for r in asked
        ]

    def conditional(self, row, which):
        part = self.joint
        for axis, (value, size) in enumerate(
            zip(row.tolist(), self.sizes, strict=True)
        ):
            if value < size and axis != which:
                part = part.narrow(axis, value, 1)
        others = [axis for axis in range(part.ndim) if axis != which]
        part = part.sum(dim=others)
        return (part / part.sum()).log()


def nobody(users=1):
    empty = torch.zeros(users, 1, 1)
    return Memory(empty, empty[..., 0].bool(), empty[:, 0])


# ------------------------------------------------------------------- masks


def test_every_size_and_every_subset_is_masked_equally_often():
    masks = draw_masks((70_000, 3), seeded())
    codes = (masks * torch.tensor([1, 2, 4])).sum(dim=1)
    shares = codes.bincount(minlength=8) / len(codes)
    # sizes 1, 2, 3 a third each; three subsets of sizes 1 and 2
    expected = torch.tensor([0, 1, 1, 1, 1, 1, 1, 3]) / 9
    assert torch.allclose(shares, expected, atol=0.006)


def test_the_loss_is_the_continuous_time_bound():
    """Sum over subsets by hand, with E_t 1/t q(subset | t) integrated."""
    network, tokens = network_of(), torch.tensor([[1, 2, 0]])
    memory = network.remember(*(part[:1] for part in portraits()))
    times = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    expected = 0.0
    for masked in itertools.product([False, True], repeat=3):
        count = sum(masked)
        if not count:
            continue
        weight = (times ** (count - 1) * (1 - times) ** (3 - count)).mean()
        states = torch.where(torch.tensor(masked), torch.tensor(SIZES), tokens)
        parts = network.answer(states[:, None], memory)
        for r, hidden in enumerate(masked):
            if hidden:
                expected -= weight * parts[r][0, 0, tokens[0, r]].item()
    many = tokens.expand(20_000, -1)
    wide = Memory(
        memory.keys.expand(20_000, -1, -1),
        memory.padding.expand(20_000, -1),
        memory.summary.expand(20_000, -1),
    )
    with torch.no_grad():
        found = masked_loss(
            lambda states: network.answer(states, wide),
            SIZES,
            many,
            seeded(),
        )
    assert float(found) == pytest.approx(float(expected), rel=0.02)


def test_thinning_keeps_somebody_of_each_portrait():
    torch.manual_seed(0)
    real = torch.tensor([[False, True, True, True], [False] * 3 + [True]])
    for _ in range(50):
        kept = thin(real, 0.9)
        assert kept.any(dim=1).all() and not (kept & ~real).any()


# ------------------------------------------------------------------- table


@pytest.mark.parametrize("order", all_orders(3))
def test_a_table_is_a_distribution_in_every_order(order):
    network = network_of()
    memory = network.remember(*portraits())
    table = log_table(network, memory, [order])
    assert table.shape == (3, *SIZES)
    assert torch.allclose(table.exp().sum((1, 2, 3)), torch.ones(3))


def test_the_table_is_the_chain_rule_by_hand():
    network = network_of()
    memory = network.remember(*portraits())
    table = log_table(network, memory, [(2, 0, 1)])

    def ask(state, which):
        states = torch.tensor(state).expand(3, 1, 3)
        return network.answer(states, memory, which)[0][1, 0]

    expected = (
        ask([4, 4, 3], 2)[2] + ask([4, 4, 2], 0)[3] + ask([3, 4, 2], 1)[1]
    )
    assert float(table[1, 3, 1, 2]) == pytest.approx(float(expected), abs=1e-5)
    both = log_table(network, memory, [(2, 0, 1), (0, 1, 2)])
    other = log_table(network, memory, [(0, 1, 2)])
    assert torch.allclose(both.exp(), (table.exp() + other.exp()) / 2)


def test_with_true_conditionals_every_order_gives_the_true_joint():
    joint = torch.rand(SIZES, generator=seeded()) + 0.01
    joint /= joint.sum()
    for order in all_orders(3):
        table = log_table(Known(joint), nobody(), [order])
        assert torch.allclose(table[0].exp(), joint, atol=1e-6)


def test_strings_of_other_lengths_have_tables_too():
    network = network_of(sizes=(2, 3))
    memory = network.remember(*portraits())
    table = log_table(network, memory, all_orders(2))
    assert table.shape == (3, 2, 3)
    assert torch.allclose(table.exp().sum((1, 2)), torch.ones(3))


# ------------------------------------------------------------------- draws


def test_draws_follow_the_table():
    joint = torch.tensor([[0.1, 0.2], [0.3, 0.4]])
    uniform = torch.rand(1, 20_000, 4, generator=seeded())

    class Fast(Known):
        def conditional(self, row, which):
            key = (*row.tolist(), which)
            if key not in memo:
                memo[key] = super().conditional(row, which)
            return memo[key]

    memo = {}
    made = draw(Fast(joint), nobody(), uniform)[0]
    shares = (made[:, 0] * 2 + made[:, 1]).bincount(minlength=4) / len(made)
    assert torch.allclose(shares, joint.flatten(), atol=0.015)


def test_draws_of_the_network_agree_with_its_table():
    """Random orders draw from the mean over all orders of the chain rule."""
    network = network_of()
    memory = network.remember(*(part[:1] for part in portraits()))
    with torch.no_grad():
        table = log_table(network, memory, all_orders(3))[0].exp()
        uniform = torch.rand(1, 40_000, 6, generator=seeded())
        made = draw(network, memory, uniform)[0]
    assert int((made >= torch.tensor(SIZES)).sum()) == 0
    cells = (made[:, 0] * 4 + made[:, 1]).bincount(minlength=16) / len(made)
    assert torch.allclose(cells, table.sum(2).flatten(), atol=0.01)


# ----------------------------------------------------------------- portrait


def test_padding_and_the_order_of_the_history_change_nothing():
    network = network_of()
    points, cells, real = portraits()
    expected = log_table(
        network, network.remember(points, cells, real), [(0, 1, 2)]
    )
    shuffled = torch.randperm(6, generator=seeded())
    wider = torch.nn.functional.pad
    found = network.remember(
        wider(points[:, shuffled], (0, 0, 2, 0), value=7.0),
        wider(cells[:, shuffled], (0, 0, 2, 0)),
        wider(real[:, shuffled], (2, 0)),
    )
    again = log_table(network, found, [(0, 1, 2)])
    assert torch.allclose(again, expected, atol=1e-5)


def test_the_network_sees_where_the_history_lies():
    network = network_of()
    points, cells, real = portraits()
    first = log_table(
        network, network.remember(points, cells, real), [(0, 1, 2)]
    )
    moved = network.remember(points, (cells + 1) % 4, real)
    assert not torch.allclose(
        first, log_table(network, moved, [(0, 1, 2)]), atol=1e-3
    )


def test_it_learns_two_answers_where_a_product_of_marginals_fails():
    network = network_of(dropout=0.0)
    points, cells, real = portraits(users=1)
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    source = seeded()
    network.train()
    for _ in range(150):
        drawn = torch.randint(2, (32,), generator=source)
        loss = masked_loss(
            lambda states: network(
                states,
                points.expand(32, -1, -1),
                cells.expand(32, -1, -1),
                real.expand(32, -1),
            ),
            SIZES,
            ANSWERS[drawn],
            source,
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    network.eval()
    with torch.no_grad():
        memory = network.remember(points, cells, real)
        table = log_table(network, memory, all_orders(3))[0].exp()
    right = sum(float(table[tuple(answer)]) for answer in ANSWERS.tolist())
    product = math.prod(
        float(table.sum([a for a in range(3) if a != axis])[value])
        for axis, value in enumerate((0, 3, 1))
    )
    assert right > 0.95 and table.max() < 0.6
    assert product > 0.1  # what never happens, says the product
    assert float(table[0, 3, 1]) < 0.01
