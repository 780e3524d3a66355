"""Evaluation mode for a while."""

import doctest

import pytest
from torch import nn

import lightning_repshape.functional.modes as modes
from lightning_repshape.layers import evaluating


def test_every_submodule_gets_its_own_mode_back_after_an_error_too() -> None:
    net = nn.Sequential(nn.Dropout(), nn.Sequential(nn.BatchNorm1d(3).eval(), nn.Dropout()))
    before = [part.training for part in net.modules()]
    with pytest.raises(RuntimeError, match="stop"), evaluating(net):
        assert not any(part.training for part in net.modules())
        raise RuntimeError("stop")
    assert [part.training for part in net.modules()] == before == [True, True, True, False, True]


def test_examples_in_docstrings() -> None:
    failed, attempted = doctest.testmod(modes, extraglobs={"nn": nn})
    assert attempted > 0
    assert failed == 0
