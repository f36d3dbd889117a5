"""Words a second of training the text classifier: batches of like length in bfloat16 against padding in float32.

Real words are counted, not padding. The texts are random words, with lengths spread like those of SST-2's phrases (a
mean of ten, a few of fifty). Every side trains the same network with the same optimizer in one process, which keeps
freed memory for all of them.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim import AdamW

from core.accelerator import Accelerator
from core.devices import cpu_has_bf16
from core.distributed import World
from core.learner import Learner
from core.optim import decay_groups, warmup_cosine
from core.trainer import total_steps
from projects.sentiment.config import Config
from projects.sentiment.data import Batch, LengthOrder, TextSet, batch_loader
from projects.sentiment.model import Ensemble
from projects.sentiment.tokenizer import PAD
from projects.sentiment.train import train_step
from tests.benchmarks import measure

NUM_WORDS, MEAN_LENGTH, LONGEST = 15_000, 9.9, 55
BASELINE, OURS = "longest of all, fp32", "ours"
SIDES = {
    BASELINE: "random batches, padded to the longest text of the corpus, float32",
    "longest of batch, fp32": "random batches, padded to the longest of each, float32",
    "longest of batch, bf16": "the same in bfloat16",
    "like length, fp32": "batches of texts of like length, float32",
    "like length, bf16": "the same in bfloat16",
    OURS: "projects.sentiment as it is: + clipping, checks, schedule, averaged weights, metrics",
}


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    flags = measure.parser("text", "Words a second of training the text classifier on a CPU.", rounds=5)
    flags.add_argument("--steps", type=int, default=20, help="measured steps of a side (default: %(default)s)")
    flags.add_argument("--batch-size", type=int, default=64, help="texts of a step (default: %(default)s)")
    flags.add_argument("--hidden-size", type=int, default=Config().hidden_size, help="units (default: %(default)s)")
    arguments = flags.parse_args(argv)
    measure.use_threads(arguments.threads)
    config = Config(batch_size=arguments.batch_size, hidden_size=arguments.hidden_size, members=1, epochs=1)
    split = make_texts(max(200, 2 * arguments.steps) * arguments.batch_size)
    accelerators = {name: Accelerator(device="cpu", precision=name, clip_norm=1.0) for name in ("fp32", "bf16")}
    loops: dict[str, Callable[[Iterator[Batch]], None]] = {}
    for name in SIDES:
        accelerator = accelerators["fp32" if name.endswith("fp32") else "bf16"]
        loops[name] = our_way(config, split, accelerator) if name == OURS else by_hand(config, accelerator)
    sides = {
        name: partial(words_a_second, loops[name], batches(name, split, config), arguments.steps) for name in SIDES
    }
    rows = measure.summarize(measure.interleaved(sides, arguments.rounds), BASELINE)
    columns = {"words_per_second": "words/s", "words_per_processor_second": "words/s of processor time"}
    columns["padding_percent"] = "padding, %"
    title = f"Training the text classifier, batch {arguments.batch_size}, {arguments.threads} thread(s)"
    measure.show(title, rows, columns, BASELINE)
    for name, meaning in SIDES.items():
        print(f"  {name}: {meaning}")
    facts: dict[str, Any] = {"baseline": BASELINE, "ours": OURS, "meanings": SIDES, "native_bf16": cpu_has_bf16()}
    measure.write("text", argv, arguments, {"text": rows}, **facts)


def make_texts(num: int) -> TextSet:
    """Random words in texts whose lengths are spread like those of phrases."""
    random = np.random.default_rng(0)
    lengths = torch.from_numpy(np.minimum(random.geometric(1 / MEAN_LENGTH, num), LONGEST))
    lengths[0] = LONGEST
    tokens = torch.from_numpy(random.integers(1, NUM_WORDS, int(lengths.sum())))
    labels = random.integers(0, 2, num)
    return TextSet([""] * num, labels, [""] * num, tokens, lengths.cumsum(0) - lengths, lengths)


def batches(name: str, split: TextSet, config: Config) -> Iterator[Batch]:
    """A side's batches without end, epoch after epoch."""
    lengths = split.lengths if name == OURS or name.startswith("like") else torch.zeros_like(split.lengths)
    order = LengthOrder(len(split), config.batch_size, world=World(), lengths=lengths)
    for epoch in range(1_000_000):
        for ids, labels in batch_loader(split, order).batches(epoch):
            yield F.pad(ids, (0, LONGEST - ids.shape[1])) if name == BASELINE else ids, labels


def words_a_second(loop: Callable[[Iterator[Batch]], None], source: Iterator[Batch], steps: int) -> dict[str, float]:
    """One measurement: a step that is not counted, then `steps` of them."""
    seen: list[Tensor] = []

    def noting() -> Iterator[Batch]:
        for ids, labels in islice(source, steps):
            seen.append(ids)
            yield ids, labels

    loop(islice(source, 1))
    wall, processor = time.perf_counter(), time.process_time()
    loop(noting())
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    words = sum(int((ids != PAD).sum()) for ids in seen)
    padding = 100 * (1 - words / sum(ids.numel() for ids in seen))
    return {
        "words_per_second": words / wall,
        "words_per_processor_second": words / processor,
        "padding_percent": padding,
    }


def new_network(config: Config) -> Ensemble:
    """The classifier's network, untrained."""
    torch.manual_seed(0)
    return Ensemble.of(config, NUM_WORDS, 2, None)


def by_hand(config: Config, accelerator: Accelerator) -> Callable[[Iterator[Batch]], None]:
    """A plain training loop."""
    network = new_network(config)
    optimizer = AdamW(decay_groups(network, config.weight_decay), lr=config.lr, fused=True)

    def loop(source: Iterator[Batch]) -> None:
        for ids, labels in source:
            with accelerator.autocast():
                logits = network(ids)
            F.cross_entropy(logits[0].float(), labels).backward()
            optimizer.step()
            optimizer.zero_grad()

    return loop


def our_way(config: Config, split: TextSet, accelerator: Accelerator) -> Callable[[Iterator[Batch]], None]:
    """The classifier's own train step."""
    network = new_network(config)
    optimizer = AdamW(decay_groups(network, config.weight_decay), lr=config.lr, fused=True)
    order = LengthOrder(len(split), config.batch_size, lengths=split.lengths)
    steps = total_steps(config, batch_loader(split, order))
    schedule = warmup_cosine(steps, round(config.warmup * steps))
    learner = Learner(network, optimizer, schedule, accelerator, ema=config.ema)

    def loop(source: Iterator[Batch]) -> None:
        for batch in source:
            train_step(batch, learner=learner, label_smoothing=config.label_smoothing)

    return loop


if __name__ == "__main__":
    main()
