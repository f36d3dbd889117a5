"""A student comes close to its teacher, the loss is that of the paper, and a teacher of other classes is refused."""

from pathlib import Path

import pytest
import torch
from torch import nn

from core.errors import UserError
from core.program import parse_training
from projects.cifar10 import train as program
from projects.cifar10.config import Config
from projects.cifar10.distillation import Distillation
from tests.forked import main_of, metrics, summary

TINY = "--data digits --device cpu --precision fp32 --ema 0 --log-every 1"


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LeNet that reads most digits."""
    run_dir = tmp_path_factory.mktemp("teacher") / "run"
    main_of(program)([*TINY.split(), "--model", "lenet", "--epochs", "4", "--run-dir", str(run_dir)])
    assert summary(run_dir)["test_accuracy"] > 0.8
    return run_dir


def test_the_loss_is_that_of_the_paper() -> None:
    torch.manual_seed(0)
    network, images, logits = nn.Sequential(nn.Flatten(), nn.Linear(12, 5)), torch.randn(7, 3, 2, 2), torch.randn(7, 5)
    distillation = Distillation(network, weight=0.3, temperature=4.0)
    found = distillation.mixed(torch.tensor(2.0), logits, distillation.targets(images))
    p, q = ((scores.double() / 4).softmax(1) for scores in (network(images), logits))
    expected = 0.7 * 2 + 0.3 * 16 * (p * (p.log() - q.log())).sum(1).mean()
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=0)


def test_a_student_that_hears_its_teacher_alone_comes_close_to_it(teacher: Path, tmp_path: Path) -> None:
    flags = f"--model mlp --epochs 2 --teacher {teacher} --teacher-weight 1 --lr 0.05"
    main_of(program)([*TINY.split(), *flags.split(), "--run-dir", str(tmp_path / "run")])
    losses = [line["train/loss"] for line in metrics(tmp_path / "run") if "train/loss" in line]
    assert losses[-1] < 0.2 * losses[0]


@pytest.mark.parametrize(
    ("flags", "what"),
    [
        ("--image-size 20", "other image size"),
        ("--val-fraction 0.3", "other mean and deviation"),
        ("--data synthetic --num-synthetic 400", "other classes"),
    ],
)
def test_a_teacher_of_other_data_is_refused_with_nothing_created(
    flags: str, what: str, teacher: Path, tmp_path: Path
) -> None:
    argv = [*TINY.split(), "--model", "fast", *flags.split(), "--teacher", str(teacher), "--run-dir", tmp_path / "run"]
    with pytest.raises(UserError, match=f"the teacher learned something else: .*{what}"):
        program.train(parse_training(Config, [str(word) for word in argv]))
    assert not list(tmp_path.iterdir())


def test_a_teacher_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such run folder: --teacher"):
        parse_training(Config, ["--teacher", str(tmp_path), "--data", "synthetic"])
