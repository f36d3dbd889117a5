"""Weights fit a network or are refused by name with the network as it was."""

import pytest
import torch
from torch import Tensor, nn

from core.errors import UserError
from projects.transfer.weights import load_weights


class Net(nn.Module):
    """A filter, a norm and a head of three classes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.fc = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 3)


def weights(seed: int = 0) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return {name: tensor.clone() for name, tensor in Net().state_dict().items()}


def load(network: nn.Module, given: dict[str, Tensor], partial: bool = False) -> list[str]:
    return list(load_weights(network, given, head="fc", where="FILE", partial=partial))


def test_weights_that_fit_are_taken_whatever_the_head_is() -> None:
    for head in (torch.zeros(3, 4), torch.zeros(1000, 4), None):
        network, given = Net(), weights(seed=5)
        given.pop("fc.weight")
        if head is not None:
            given["fc.weight"] = head
        before = network.fc.weight.clone()
        assert load(network, given) == []
        assert torch.equal(network.conv.weight, given["conv.weight"])
        assert torch.equal(network.fc.weight, before)


def test_half_precision_is_taken_and_older_files_without_counters_too() -> None:
    given = {name: t.half() if t.is_floating_point() else t for name, t in weights().items()}
    given.pop("norm.num_batches_tracked")
    network = Net()
    assert load(network, given) == []
    assert network.conv.weight.dtype == torch.float32
    assert torch.equal(network.conv.weight, given["conv.weight"].float())


def spoilt(fault: str) -> dict[str, Tensor]:
    given = weights(seed=5)
    if fault == "missing":
        del given["norm.weight"]
    elif fault == "shape":
        given["norm.weight"] = torch.zeros(5)
    elif fault == "view":
        given["norm.weight"] = torch.zeros(1).expand(10**11)
    elif fault == "dtype":
        given["norm.weight"] = torch.zeros(4, dtype=torch.int64)
    elif fault == "unknown":
        given["stem.weight"] = torch.zeros(4)
    return given


@pytest.mark.parametrize("fault", ["missing", "shape", "view", "dtype", "unknown"])
def test_a_partial_match_is_refused_by_name_with_nothing_changed_unless_it_is_asked_for(fault: str) -> None:
    network, given = Net(), spoilt(fault)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    name = "stem.weight" if fault == "unknown" else "norm.weight"
    with pytest.raises(UserError, match=name) as caught:
        load(network, given)
    assert "--partial-weights" in str(caught.value)
    assert all(torch.equal(tensor, before[key]) for key, tensor in network.state_dict().items())
    faults = load(network, given, partial=True)
    assert len(faults) == 1
    assert faults[0].startswith(name)
    assert torch.equal(network.conv.weight, given["conv.weight"])
    assert torch.equal(network.norm.weight, given["norm.weight"] if fault == "unknown" else before["norm.weight"])


def test_weights_of_another_network_are_refused_even_in_part() -> None:
    with pytest.raises(UserError, match="do not fit"):
        load(Net(), {"layer1.0.weight": torch.zeros(3, 3), "norm.bias": torch.zeros(4)}, partial=True)


def test_a_long_list_of_faults_is_cut_in_the_message() -> None:
    with pytest.raises(UserError, match=r"and [0-9]+ more"):
        load(Net(), {f"stage{number}": torch.zeros(2, 2) for number in range(30)})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(value: float) -> None:
    network, given = Net(), weights()
    given["norm.running_var"][2] = value
    before = network.conv.weight.clone()
    with pytest.raises(UserError, match=r"not finite: norm\.running_var"):
        load(network, given)
    assert torch.equal(network.conv.weight, before)
