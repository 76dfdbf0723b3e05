"""What a device is told, and where a role waits: as far as a CPU can hold it."""
import doctest

import pytest
import torch

from engine import device, logps, offload


@pytest.mark.parametrize("module", [device, logps])
def test_doctests(module):
    assert doctest.testmod(module).failed == 0


def test_running_out_of_memory_is_known_from_other_errors():
    with pytest.raises(RuntimeError) as here:
        torch.empty(10 ** 15)
    for error in (here.value, MemoryError(), torch.OutOfMemoryError("CUDA out of memory")):
        assert device.is_out_of_memory(error)
    for error in (RuntimeError("shapes do not match"), ValueError("memory"), KeyboardInterrupt()):
        assert not device.is_out_of_memory(error)


def test_a_tensor_waits_in_the_same_place_every_time():
    waiting = offload.Waiting(torch.device("cpu"))
    first = waiting.put("x", torch.arange(3.0))
    place = first.data_ptr()
    second = waiting.put("x", torch.arange(3.0) + 1)
    assert second.data_ptr() == place and second.tolist() == [1, 2, 3]
    # what waits is not what it was copied from
    other = torch.ones(2)
    held = waiting.put("y", other)
    other.zero_()
    assert held.tolist() == [1, 1]


def test_on_a_cpu_nothing_moves(make_policy):
    policy, _ = make_policy()
    places = [p.data_ptr() for p in policy.params]
    policy.move("cpu", awake=False)
    policy.move(policy.device, awake=True)
    assert [p.data_ptr() for p in policy.params] == places and not policy.waiting.places
