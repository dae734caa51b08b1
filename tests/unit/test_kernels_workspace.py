"""Memory that merges share: the same bits as without, one at a time, gone when it is given back."""

import threading

import pytest
import torch
from shinymas_loha.loha.kernels import Workspace, merge_
from shinymas_loha.tests.unit.kernels_helpers import LAYOUTS, random_factors, random_weight


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_one_workspace_over_many_weights_gives_the_bits_of_none(dtype):
    workspace = Workspace()
    shapes = [(1300, 900, 16, 16), (7, 5, 3, 9), (64, 1200, 1, 32), (1, 1, 8, 2), (700, 1500, 16, 4)]
    for number, (out, inputs, rank1, rank2) in enumerate(shapes):
        for layout in LAYOUTS:
            weight = random_weight(number, out, inputs, layout, dtype)
            factors = random_factors(number, out, weight[0].numel(), rank1, rank2, torch.float16)
            alone, shared = weight.clone(), weight.clone()
            merge_(alone, factors, 0.7)
            merge_(shared, factors, 0.7, workspace)
            assert torch.equal(alone, shared), (out, inputs, layout)
    assert workspace.nbytes


def test_the_same_memory_again_and_more_of_it_where_more_is_needed():
    workspace = Workspace()
    with workspace.lend(1000) as first:
        assert first.nbytes >= 1000
    with workspace.lend(10) as second:
        assert second.data_ptr() == first.data_ptr()
    with workspace.lend(5000) as third:
        assert third.nbytes >= 5000
    assert workspace.nbytes == third.nbytes


def test_released_it_is_gone_even_where_it_was_lent():
    workspace = Workspace()
    with workspace.lend(1000):
        pass
    workspace.release()
    assert workspace.nbytes == 0
    with workspace.lend(1000):
        workspace.release()
    assert workspace.nbytes == 0


def test_an_error_gives_it_back():
    workspace = Workspace()
    with pytest.raises(RuntimeError), workspace.lend(1000):
        raise RuntimeError
    assert workspace.nbytes == 1000


def test_two_threads_never_hold_the_same_memory():
    workspace, wrong = Workspace(), []

    def merge(mark):
        for _ in range(300):
            with workspace.lend(4096) as memory:
                memory.fill_(mark)
                if not (memory == mark).all():
                    wrong.append(mark)

    threads = [threading.Thread(target=merge, args=(mark,)) for mark in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert workspace.nbytes == 4096
