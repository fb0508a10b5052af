"""Shares of batches: each process of a group has its own, and layers know which."""

from types import SimpleNamespace

import numpy as np
import pytest

import xpnet
from xpnet import nn
from xpnet.share import current_share, share_of, using_share


def groups(size):
    return [SimpleNamespace(rank=rank, size=size) for rank in range(size)]


@pytest.mark.parametrize("size", [2, 3, 4])
@pytest.mark.parametrize("examples", [4, 5, 6, 7, 12, 17])
def test_shares_follow_one_another_and_are_nearly_of_a_size(size, examples):
    shares = [share_of(group, examples) for group in groups(size)]
    ends = [share.start + share.number for share in shares]
    assert [share.start for share in shares] == [0, *ends[:-1]]
    assert ends[-1] == examples
    numbers = [share.number for share in shares]
    assert numbers == sorted(numbers, reverse=True)
    assert numbers[0] - numbers[-1] <= 1
    assert all(share.is_counted and share.copies == 1 for share in shares)


def test_fewer_examples_than_processes_are_on_all_and_counted_once():
    shares = [share_of(group, 3) for group in groups(4)]
    assert {(share.start, share.number, share.batch, share.copies) for share in shares} == {(0, 3, 3, 4)}
    assert [share.is_counted for share in shares] == [True, False, False, False]


@pytest.mark.parametrize("shape", [(7,), (7, 3), (14, 2)])  # the last of two positions for each example
@pytest.mark.parametrize("size", [2, 3, 8])
def test_dropout_draws_its_part_of_one_stream(shape, size):
    ones = np.ones(shape, dtype="float32")
    whole = nn.Dropout(0.5, seed=0)
    expected = whole(ones)
    for group in groups(size):
        share, layer = share_of(group, 7), nn.Dropout(0.5, seed=0)
        rows = slice(*(shape[0] // 7 * n for n in (share.start, share.start + share.number)))
        with using_share(share):
            np.testing.assert_array_equal(layer(ones[rows]), expected[rows])
        np.testing.assert_array_equal(layer.random_state, whole.random_state)


@pytest.mark.parametrize("shape", [(5, 4), ()])
def test_numbers_for_something_else_than_examples_are_refused(shape):
    with (
        using_share(share_of(groups(2)[0], 8)),
        pytest.raises(ValueError, match=r"whose first axis is that of the examples, received the shape \("),
    ):
        nn.Dropout(0.5, seed=0)(np.ones(shape, dtype="float32"))


def test_a_share_holds_inside_its_block_alone():
    share = share_of(groups(2)[0], 8)
    with using_share(share):
        assert current_share() is share
        with using_share(None):
            assert current_share() is None
    assert current_share() is None


def test_a_layer_takes_a_group_and_nothing_else():
    with pytest.raises(TypeError, match=r"group must be xpnet\.distributed\.world\(\), received int"):
        nn.BatchNorm(3, group=2)
    x = np.random.default_rng(0).normal(size=(5, 3)).astype("float32")
    layers = nn.BatchNorm(3), nn.BatchNorm(3, group=xpnet.distributed.world())
    np.testing.assert_array_equal(*(layer(x) for layer in layers))
