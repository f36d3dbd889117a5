"""Trains the classifier: python -m projects.sentiment.train --data sst2|imdb|synthetic|FILE|DIR.

Recipe: AdamW under warm-up and cosine, word dropout (Iyyer et al. 2015, "Deep Unordered Composition Rivals Syntactic
Methods"), dropout of embedded numbers and of units, averaged weights, and a temperature fitted on validation texts.
"""

from core.program import TrainCommand, answer_early, parse_training, run_training
from projects.sentiment.config import PACKAGED_VECTORS, Config, Facts

if __name__ == "__main__":  # --help and a wrong flag are answered here, before torch is loaded
    answer_early(parse_training, Config)

from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim import AdamW

from core.accelerator import Accelerator
from core.errors import printable
from core.evaluation import count_weights
from core.files import write_atomically
from core.learner import Learner
from core.optim import decay_groups, warmup_cosine
from core.plots import curves, optional
from core.randomness import seed_all
from core.run import RunFolder
from core.trainer import Monitor, fit, total_steps
from core.training_state import LoopState
from projects.sentiment.attention import plot_attention
from projects.sentiment.data import (
    Batch,
    Data,
    evaluation_loader,
    load_data,
    training_loader,
)
from projects.sentiment.evaluation import accuracy, evaluate, predict, scores
from projects.sentiment.model import Ensemble, mixed
from projects.sentiment.ngrams import fit_ngrams
from projects.sentiment.plots import LabeledTexts, plot_results
from projects.sentiment.vectors import packaged_vectors, read_vectors

_NUM_FAULTS_SHOWN = 5


def train_step(batch: Batch, *, learner: Learner[Ensemble], label_smoothing: float) -> dict[str, Tensor]:
    """One batch: logits, loss, update. Returns the mean loss and accuracy of the members on the batch."""
    ids, labels = batch
    with learner.accelerator.autocast():
        logits = learner.forward(ids)
    targets = labels.repeat(len(logits))
    loss = F.cross_entropy(logits.flatten(0, 1).float(), targets, label_smoothing=label_smoothing)
    learner.step(loss)
    return {"loss": loss.detach(), "accuracy": (logits.detach().argmax(2) == labels).mean(dtype=torch.float32)}


def train(command: TrainCommand[Config]) -> None:
    """The whole training, from the settings to the report."""
    config, accelerator = command.config, Accelerator.of(command.config)
    seed_all(config.seed, rank=0)  # all ranks begin with the same weights
    data = load_data(config)
    ngrams = fit_ngrams(data.train, data.val, len(data.tokenizer), len(data.classes)) if config.ngrams else None
    vectors = torch.from_numpy(packaged_vectors(data.tokenizer)) if config.vectors == PACKAGED_VECTORS else None
    network = Ensemble.of(config, data.num_learned_words, len(data.classes), ngrams, vectors)
    notes = [*data.notes, *_start_from_vectors(network, data, config)]
    data = data.to(accelerator.device)
    loader = training_loader(data, config, accelerator)
    steps = total_steps(config, loader)
    optimizer = AdamW(decay_groups(network, config.weight_decay), lr=config.lr, fused=True)
    schedule = warmup_cosine(steps, round(config.warmup * steps))
    learner = Learner(network, optimizer, schedule, accelerator, ema=config.ema)
    run = RunFolder.start(
        command, _facts_of(data, config, 0 if ngrams is None else len(ngrams.codes)), accelerator.world
    )
    if run.says_complete():
        return
    run.say_all(notes)
    _write_data_files(run, data)
    name, num_weights = run.facts.model, count_weights(network)
    run.say(f"{name}, {num_weights:,} weights, {len(data.train):,} texts; {accelerator.describe()}")
    val = evaluation_loader(data.val, config, accelerator.world)
    loop = fit(
        partial(train_step, learner=learner, label_smoothing=config.label_smoothing),
        loader,
        accelerator=accelerator,
        state=learner.state(),
        run=run,
        evaluate=partial(evaluate, val, learner.averaged, network, accelerator),
        monitor=Monitor("calibrated_loss", larger_is_better=False),  # less noisy than accuracy on a few hundred texts
        graph_key=lambda: "step",  # of each length that batches are padded to
    )
    if run.world.is_main:
        _finish(run, loop, data, learner)


def _start_from_vectors(network: Ensemble, data: Data, config: Config) -> list[str]:
    """Puts the given word vectors into the embeddings; returns a note on how many words have one."""
    if config.vectors is None or network.vectors is not None:
        return []
    rows, vectors = read_vectors(Path(config.vectors), data.tokenizer, config.embedding_size)
    with torch.no_grad():
        for member in network.members:
            member.get_parameter("embedding.weight")[torch.from_numpy(rows)] = torch.from_numpy(vectors)
    share = len(rows) / len(data.tokenizer)
    return [f"{config.vectors} has vectors of {len(rows):,} of {len(data.tokenizer):,} words ({share:.1%})"]


def _facts_of(data: Data, config: Config, num_ngrams: int) -> Facts:
    """What export needs of this run."""
    kind = f"{config.cell.upper()}s" if config.model == "recurrent" else f"{config.model}s"
    depth = "" if config.model == "cnn" else f" of {config.layers} layers"
    vectors = " on GloVe 6B vectors (PDDL 1.0)" if config.vectors == PACKAGED_VECTORS else ""
    return Facts(
        model=f"{config.members} {kind}{depth}{vectors}{', mixed with n-grams' if num_ngrams else ''}",
        classes=tuple(data.classes),
        num_words=len(data.tokenizer),
        num_learned_words=data.num_learned_words,
        num_ngrams=num_ngrams,
        num_train=len(data.train),
        data_sha256=data.sha256,
        tokenizer_sha256=data.tokenizer.sha256(),
    )


def _write_data_files(run: RunFolder[Config, Facts], data: Data) -> None:
    """Writes the tokenizer and the list of the rows that were left out, and prints the first of these."""
    if run.world.is_main:
        write_atomically(run.path / "tokenizer.json", data.tokenizer.to_json().encode())
    if data.faults:
        lines = [printable(f"{fault.where}: {fault.what}") for fault in data.faults]
        if run.world.is_main:
            write_atomically(run.path / "skipped_rows.txt", ("\n".join(lines) + "\n").encode())
        run.say_all([f"{len(lines):,} rows are left out, see {run.path}/skipped_rows.txt", *lines[:_NUM_FAULTS_SHOWN]])


def _finish(run: RunFolder[Config, Facts], loop: LoopState, data: Data, learner: Learner[Ensemble]) -> None:
    """Evaluates the best weights on the test texts, once; writes plots and summary, and says what to do next."""
    learner.load_best(run, loop)
    network, config = learner.averaged, run.config
    logits_of = partial(predict, network=network, config=config, accelerator=learner.accelerator)
    words, ngrams = logits_of(data.val)
    val_accuracy = accuracy(mixed(words, ngrams, network.share.cpu()), data.val.labels)
    texts, name = (data.test, "test") if data.test is not None else (data.val, "val")
    scored, uncalibrated, probabilities = scores(*logits_of(texts), texts.labels, network, name)
    with optional():
        curves(run.path, ["loss", "accuracy"])
        labeled = LabeledTexts(texts.texts, texts.where, texts.labels, texts.lengths.numpy())
        plot_results(run.path, data.classes, labeled, {"as trained": uncalibrated, "calibrated": probabilities})
        plot_attention(
            run.path / "plots" / "attention.png", texts, probabilities, data.classes, data.tokenizer, network
        )
    on = f"on {len(texts):,} texts, weights of step {loop.best_step} (val accuracy {val_accuracy:.4f})"
    results = {f"{name} accuracy": f"{scored[f'{name}_accuracy']:.4f} {on}"}
    if network.ngrams is not None:
        alone = [f"{scored[f'{part}_alone_{name}_accuracy']:.4f} the {part}" for part in ("network", "ngrams")]
        results["alone"] = f"{', '.join(alone)}, whose share is {scored['ngrams_share']:.2f}"
    run.summarize({**scored, "best_val_accuracy": val_accuracy, "best_val_loss": loop.best, **loop.numbers()})
    run.report({**results, "mistakes": f"{run.path}/mistakes.txt"})


if __name__ == "__main__":
    run_training(Config, train)
