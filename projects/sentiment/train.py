"""Trains the classifier: python -m projects.sentiment.train --data sst2|imdb|synthetic|FILE|DIR.

Recipe: AdamW under warm-up and cosine, word dropout (Iyyer et al. 2015, "Deep Unordered Composition Rivals Syntactic
Methods"), dropout of embedded numbers and of units, averaged weights, and a temperature fitted on validation texts.
"""

from core.config import Command, answer_early, parse_training
from projects.sentiment.config import PROJECT, SMOKE, Config


def parse_arguments(argv: list[str] | None = None) -> Command[Config]:
    """The command line."""
    return parse_training(Config, "projects.sentiment.train", SMOKE, argv)


if __name__ == "__main__":  # --help and a wrong flag are answered here, before torch is loaded
    answer_early(parse_arguments)

import time
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from core import distributed
from core.accelerator import Accelerator
from core.checkpoint import write_atomically
from core.data import Loader
from core.distributed import World
from core.errors import run_command
from core.evaluation import evaluating
from core.optim import Ema, decay_groups, warmup_cosine
from core.randomness import seed_all
from core.run import RunFolder
from core.trainer import LoopState, Monitor, Stateful, best_state, fit, total_steps
from projects.sentiment.baseline import measure_baseline
from projects.sentiment.calibration import calibration_error, fit_temperature
from projects.sentiment.data import (
    Batch,
    Data,
    Split,
    evaluation_loader,
    evaluation_rows,
    load_data,
    training_loader,
)
from projects.sentiment.model import Sentiment
from projects.sentiment.pictures import draw
from projects.sentiment.vectors import read_vectors

SMOKE_LOSS_RATIO = 0.8  # a smoke run has to bring the loss below this share of its first value
NUM_FAULTS_SHOWN = 5


def train_step(
    batch: Batch,
    *,
    forward: nn.Module,
    optimizer: Optimizer,
    scheduler: LambdaLR,
    ema: Ema | None,
    accelerator: Accelerator,
    label_smoothing: float,
) -> dict[str, Tensor]:
    """One batch: logits, loss, update. Returns the mean loss and accuracy of the members on the batch."""
    ids, labels = batch
    with accelerator.autocast():
        logits = forward(ids)
    targets = labels.repeat(len(logits))
    loss = F.cross_entropy(logits.flatten(0, 1).float(), targets, label_smoothing=label_smoothing)
    accelerator.step(loss, optimizer, scheduler=scheduler, ema=ema)
    return {"loss": loss.detach(), "accuracy": (logits.detach().argmax(2) == labels).mean(dtype=torch.float32)}


def evaluate(
    loader: Loader[Batch], network: Sentiment, trained: Sentiment, accelerator: Accelerator
) -> dict[str, float]:
    """Accuracy, cross-entropy, and calibration error over all texts of a loader, over all ranks.

    Sets the temperature of both networks: the one that is judged, and the one that is trained.
    """
    parts = distributed.gather(predictions(loader, network, accelerator))
    logits, labels = torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])
    temperature = fit_temperature(logits, labels)
    for module in (network, trained):
        module.temperature.fill_(temperature)
    probabilities = (logits / temperature).softmax(1).numpy()
    return {
        "accuracy": float((logits.argmax(1) == labels).double().mean()),
        "loss": float(F.cross_entropy(logits.double(), labels)),
        "calibrated_loss": float(F.cross_entropy(logits.double() / temperature, labels)),
        "calibration_error": calibration_error(probabilities, labels.numpy()),
    }


def predictions(loader: Loader[Batch], network: nn.Module, accelerator: Accelerator) -> tuple[Tensor, Tensor]:
    """Logits float32 [N, C] without temperature, and labels [N], on the CPU, in the loader's order."""
    logits, labels = [], []
    with evaluating(network):
        for batch in loader.batches(epoch=0):
            ids, targets = accelerator.to_device(batch)
            with accelerator.autocast():
                logits.append(network(ids).float().cpu())
            labels.append(targets.cpu())
    return torch.cat(logits).clone(), torch.cat(labels)


def build_schedule(optimizer: Optimizer, config: Config, steps: int) -> LambdaLR:
    """The learning rate's way through all steps."""
    return LambdaLR(optimizer, warmup_cosine(steps, round(config.warmup * steps)))


def train(command: Command[Config]) -> None:
    """The whole training, from the settings to the summary."""
    config, began = command.config, time.perf_counter()
    accelerator = Accelerator.of(config)
    seed_all(config.seed, rank=0)  # all ranks begin with the same weights
    data = load_data(config)
    network = Sentiment.of(config, len(data.vocabulary), len(data.classes))
    notes = [*data.notes, *start_from_vectors(network, data, config)]
    loader = training_loader(data, config, accelerator.world)
    forward = accelerator.prepare(network)
    optimizer = AdamW(decay_groups(network, config.weight_decay), lr=config.lr, fused=True)
    scheduler = build_schedule(optimizer, config, total_steps(config, loader))
    ema = Ema(network, config.ema) if config.ema else None
    state: dict[str, Stateful] = {"model": network, "optimizer": optimizer, "scheduler": scheduler}
    if ema is not None:
        state["ema"] = ema
    facts = {
        "model": f"{config.members} LSTMs of {config.layers} layers",
        "num_words": len(data.vocabulary),
        "classes": list(data.classes),
        "num_train": len(data.train),
        "data_sha256": data.digest(),
        "tokenizer_sha256": data.vocabulary.digest(),
    }
    run = RunFolder.start(PROJECT, config, command.run_dir, resume=command.resume, facts=facts, world=accelerator.world)
    if run.says_complete():
        return
    describe(run, data, notes, network, accelerator)
    judged: Sentiment = ema.module if ema is not None else network  # type: ignore[assignment]
    loop = fit(
        partial(
            train_step,
            forward=forward,
            optimizer=optimizer,
            scheduler=scheduler,
            ema=ema,
            accelerator=accelerator,
            label_smoothing=config.label_smoothing,
        ),
        loader,
        accelerator=accelerator,
        state=state,
        run=run,
        evaluate=partial(
            evaluate, evaluation_loader(data.val, config, accelerator.world), judged, network, accelerator
        ),
        monitor=Monitor("calibrated_loss", larger_is_better=False),  # less noisy than accuracy on a few hundred texts
    )
    distributed.stop()
    if run.world.is_main:
        finish(run, loop, data, judged, accelerator, began=began, smoke=command.smoke)


def start_from_vectors(network: Sentiment, data: Data, config: Config) -> list[str]:
    """Puts the given word vectors into the embedding; returns what to say about it."""
    if config.vectors is None:
        return []
    rows, vectors = read_vectors(config.vectors, data.vocabulary, config.embedding_size)
    with torch.no_grad():
        for member in network.members:
            member.get_parameter("embedding.weight")[torch.from_numpy(rows)] = torch.from_numpy(vectors)
    share = len(rows) / len(data.vocabulary)
    return [f"{config.vectors} has vectors of {len(rows):,} of {len(data.vocabulary):,} words ({share:.1%})"]


def describe(
    run: RunFolder[Config], data: Data, notes: list[str], network: Sentiment, accelerator: Accelerator
) -> None:
    """Says what is trained on what, and keeps the tokenizer and the list of rows that were left out."""
    for note in notes:
        run.say(note)
    if run.world.is_main:
        write_atomically(run.path / "tokenizer.json", data.vocabulary.to_json().encode())
    if data.faults:
        lines = [f"{fault.where}: {fault.what}" for fault in data.faults]
        if run.world.is_main:
            write_atomically(run.path / "skipped_rows.txt", ("\n".join(lines) + "\n").encode())
        run.say(f"{len(lines):,} rows are left out, all of them listed in {run.path}/skipped_rows.txt:")
        for line in lines[:NUM_FAULTS_SHOWN]:
            run.say(f"  {line}")
    num_weights = sum(p.numel() for p in network.parameters())
    of_test = "" if data.test is None else f", {len(data.test):,} for the test"
    run.say(f"{len(data.train):,} texts to train on, {len(data.val):,} for validation{of_test}")
    words = f"{len(data.vocabulary):,} entries in the tokenizer"
    run.say(f"{run.facts['model']}, {num_weights:,} weights, {words}, {accelerator.describe()}")


def finish(
    run: RunFolder[Config],
    loop: LoopState,
    data: Data,
    network: Sentiment,
    accelerator: Accelerator,
    *,
    began: float,
    smoke: bool,
) -> None:
    """Looks at the test texts, once, with the best weights; draws, sums up, says what to do next."""
    if smoke:
        loop.check_learned(SMOKE_LOSS_RATIO)
    best = best_state(run, loop)
    network.load_state_dict(best["ema"]["module"] if run.config.ema else best["model"])
    logits_of = partial(predict, network=network, config=run.config, accelerator=accelerator)
    val_accuracy = float((logits_of(data.val).argmax(1).numpy() == data.val.labels).mean())
    split, name = (data.test, "test") if data.test is not None else (data.val, "val")
    logits = logits_of(split)
    probabilities, uncalibrated = ((logits / t).softmax(1).numpy() for t in (float(network.temperature), 1.0))
    accuracy = float((probabilities.argmax(1) == split.labels).mean())
    draw(run.path, data.classes, split, probabilities, uncalibrated)
    summary = {
        f"{name}_accuracy": accuracy,
        f"num_{name}": len(split),
        "calibration_error": calibration_error(probabilities, split.labels),
        "temperature": float(network.temperature),
        "best_val_accuracy": val_accuracy,
        "best_val_loss": loop.best,
        "best_step": loop.best_step,
        "steps": loop.step,
        "seconds": round(time.perf_counter() - began, 1),  # of this process, from the settings to here
    }
    compared = ""
    if run.config.baseline:
        baseline = measure_baseline(data)
        summary |= {f"baseline_{part}_accuracy": value for part, value in baseline.items()}
        compared = f"bag of words   {baseline[name]:.4f} on the same texts (val accuracy {baseline['val']:.4f})\n"
    run.summarize(summary)
    print(
        f"\n{name} accuracy  {accuracy:.4f} on {len(split):,} texts, weights of step {loop.best_step} "
        f"(val accuracy {val_accuracy:.4f})\n{compared}run folder     {run.path}  "
        f"(metrics.jsonl, tensorboard/, checkpoints/, tokenizer.json, mistakes.txt)\n"
        f"pictures       {run.path}/plots: curves.png, confusion.png, reliability.png, lengths.png\n"
        f"next           python -m projects.sentiment.export {run.path}"
    )


def predict(split: Split, *, network: Sentiment, config: Config, accelerator: Accelerator) -> Tensor:
    """Logits float32 [N, C] of a split's texts in their own order; for a single process, when other ranks have left."""
    served, _ = predictions(evaluation_loader(split, config, World()), network, accelerator)
    logits = torch.empty_like(served)
    logits[evaluation_rows(split)] = served
    return logits


def main() -> None:
    """The command line."""
    train(parse_arguments())


if __name__ == "__main__":
    run_command(main)
