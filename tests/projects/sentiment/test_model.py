"""Padding changes nothing, the backward direction begins at a text's own end, and every weight takes part."""

from collections.abc import Callable
from typing import cast

import pytest
import torch
from torch import Tensor, nn

from projects.sentiment.config import Config
from projects.sentiment.encoders import (
    Cell,
    ConvolutionEncoder,
    RecurrentEncoder,
    TransformerEncoder,
    reorder,
    reversed_positions,
)
from projects.sentiment.model import Classifier, Ensemble, Pooling
from projects.sentiment.ngrams import Ngrams
from projects.sentiment.tokenizer import PAD, UNKNOWN

POOLINGS: tuple[Pooling, ...] = ("max", "mean", "attention")


def network(
    pooling: Pooling = "max", layers: int = 2, cell: Cell = "lstm", kind: str = "recurrent", **dropouts: float
) -> Classifier:
    torch.manual_seed(0)
    encoders: dict[str, Callable[[], RecurrentEncoder | TransformerEncoder | ConvolutionEncoder]] = {
        "recurrent": lambda: RecurrentEncoder(cell, 8, 6, layers, dropouts.get("dropout", 0.0)),
        "transformer": lambda: TransformerEncoder(8, 6, layers),
        "cnn": lambda: ConvolutionEncoder(8, 6),
    }
    return Classifier(encoders[kind](), 30, 8, 3, pooling=pooling, **dropouts)


def texts(*lengths: int, longest: int | None = None) -> Tensor:
    """Random texts of the given lengths, padded to `longest`; the same text for the same place and length."""
    ids = torch.full((len(lengths), longest or max(lengths)), PAD)
    for row, length in enumerate(lengths):
        generator = torch.Generator().manual_seed(100 * row + length)
        ids[row, :length] = torch.randint(1, 30, (length,), generator=generator)
    return ids


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("kind", ["recurrent 1", "recurrent 3", "transformer 2", "cnn 1"])
def test_a_text_has_the_same_logits_however_far_it_is_padded_and_whatever_else_is_in_the_batch(
    pooling: Pooling, kind: str
) -> None:
    model = network(pooling, int(kind.split()[1]), kind=kind.split()[0]).eval()
    gradients = []
    for longest in (12, 40):
        loss = model(texts(5, 1, 12, longest=longest)).square().sum()
        gradients.append(torch.autograd.grad(loss, list(model.parameters())))
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-5)
    with torch.inference_mode():
        alone = torch.cat([model(texts(*[1] * row, length)[row:, :length]) for row, length in enumerate((5, 1, 12))])
        together = model(texts(5, 1, 12))
        far = model(texts(5, 1, 12, longest=40))
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-6)
    torch.testing.assert_close(far, alone, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("cell", "kind"), [("lstm", nn.LSTM), ("gru", nn.GRU), ("rnn", nn.RNN)])
def test_it_equals_pytorchs_own_layers_on_packed_texts(cell: Cell, kind: Callable[..., nn.RNNBase]) -> None:
    model, lengths = network("mean", cell=cell), torch.tensor([5, 1, 9])
    recurrent = cast(RecurrentEncoder, model.encoder)
    own = kind(8, 6, num_layers=2, bidirectional=True)
    with torch.no_grad():
        for layer, pair in enumerate(zip(recurrent.forwards, recurrent.backwards, strict=True)):
            for one, suffix in zip(pair, ("", "_reverse"), strict=True):
                for name, parameter in one.named_parameters():
                    getattr(own, f"{name[:-1]}{layer}{suffix}").copy_(parameter)
        ids = texts(5, 1, 9)
        embedded = model.embedding(ids.T)
        packed = nn.utils.rnn.pack_padded_sequence(embedded, lengths, enforce_sorted=False)
        expected, _ = nn.utils.rnn.pad_packed_sequence(own(packed)[0])
        states, mask = model.eval().states(ids)
        torch.testing.assert_close(states * mask[..., None], expected, rtol=0, atol=1e-6)


def test_rows_are_reversed_within_their_own_length() -> None:
    mask = torch.tensor([[True, True, True], [True, False, True], [True, False, True], [False, False, True]])
    places = reversed_positions(mask)
    assert places.T.tolist() == [[2, 1, 0, 3], [0, 1, 2, 3], [3, 2, 1, 0]]
    x = torch.arange(24.0).view(4, 3, 2)
    assert reorder(x, places)[:, 0, 0].tolist() == [12, 6, 0, 18]
    assert torch.equal(reorder(reorder(x, places), places), x)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_attention_is_what_pooling_takes_from_each_word(pooling: Pooling) -> None:
    model, ids = network(pooling).eval(), texts(7, 1, 3)
    with torch.inference_mode():
        logits, attention = model.explain(ids)
        torch.testing.assert_close(logits, model(ids), rtol=0, atol=1e-6)
        torch.testing.assert_close(attention.sum(1), torch.ones(3))
        states, mask = model.states(ids)
        if pooling != "max":
            pooled = torch.einsum("nt,tnh->nh", attention, states)
            torch.testing.assert_close(pooled, model.pool(states, mask), rtol=0, atol=1e-6)
    assert (attention >= 0).all()
    assert (attention[ids == PAD] == 0).all()


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("kind", ["recurrent", "transformer", "cnn"])
def test_every_weight_takes_part_in_the_result(pooling: Pooling, kind: str) -> None:
    model = network(pooling, kind=kind)
    model(texts(6, 2, 4)).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    assert model.embedding.weight.grad is not None
    assert model.embedding.weight.grad[PAD].abs().sum() == 0


def test_units_are_left_out_of_a_whole_text_at_once() -> None:
    encoder = RecurrentEncoder("lstm", 8, 6, 2, dropout=0.5).train()
    dropped = encoder.drop_units(torch.ones(9, 4, 12))
    assert torch.equal(dropped, dropped[:1].expand_as(dropped))
    assert {0.0, 2.0} == set(dropped.unique().tolist())


def test_members_are_averaged_and_trained_independently() -> None:
    ids, members = texts(6, 2), [network(), network()]
    members[1].load_state_dict({name: -tensor for name, tensor in members[0].state_dict().items()})
    both = Ensemble(members)
    assert both.train()(ids).shape == (2, 2, 3)
    with torch.inference_mode():
        alone = [member.eval()(ids) for member in members]
        logits, attention = both.eval().explain(ids)
        torch.testing.assert_close(both(ids), (alone[0] + alone[1]) / 2)
    torch.testing.assert_close(logits, (alone[0] + alone[1]) / 2)
    torch.testing.assert_close(attention.sum(1), torch.ones(2))


def test_words_are_only_replaced_in_training_and_padding_never() -> None:
    model = network(word_dropout=0.5)
    seen: list[Tensor] = []
    model.embedding.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0].T))
    ids = texts(30, 3)
    model.train()(ids)
    model.eval()(ids)
    trained, evaluated = seen
    assert torch.equal(evaluated, ids)
    changed = trained != ids
    assert 3 < changed.sum() < 28
    assert (trained[changed] == UNKNOWN).all()
    assert not changed[ids == PAD].any()


def test_dropout_follows_the_seed() -> None:
    model = network(word_dropout=0.3, embedding_dropout=0.3, dropout=0.3).train()
    results = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        results.append(model(texts(8, 8)))
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_forget_gates_are_open_at_first() -> None:
    encoder = RecurrentEncoder("lstm", 8, 6, 2)
    for lstm in (*encoder.forwards, *encoder.backwards):
        biases = (lstm.bias_ih_l0 + lstm.bias_hh_l0).detach().chunk(4)
        assert [float(bias.mean()) for bias in biases] == [0, 1, 0, 0]


def test_bf16_agrees_with_fp32() -> None:
    model, ids = network().eval(), texts(9, 4, 1)
    with torch.inference_mode():
        exact = model(ids)
        with torch.autocast("cpu", torch.bfloat16):
            rough = model(ids)
    torch.testing.assert_close(rough.float(), exact, rtol=0.02, atol=0.02)


def test_ngrams_have_their_share_in_the_logits_and_in_the_attention() -> None:
    ngrams = Ngrams(30, 3, 3)
    ngrams.codes[:] = torch.tensor([0, 5 * 900, 5 * 900 + 7 * 30])  # a 5 anywhere, and 5 7
    ngrams.weights[1:] = torch.tensor([[1.0, 0, 0], [0, 8.0, 0]])
    ids = torch.tensor([[5, 7, 5, 7, 9], [9, 5, 0, 0, 0], [7, 0, 0, 0, 0]])
    assert ngrams(ids).tolist() == [[1, 8, 0], [1, 0, 0], [0, 0, 0]]  # each counts once in a text
    attention = ngrams.attention(ids)
    torch.testing.assert_close(attention.sum(1), torch.ones(3))
    torch.testing.assert_close(attention[0], torch.tensor([5.0, 4.0, 5.0, 4.0, 0.0]) / 18, rtol=0, atol=1e-4)
    model = Ensemble([network()], ngrams).eval()
    model.share.fill_(0.25)
    with torch.inference_mode():
        alone = Ensemble([network()]).eval()(ids)
        torch.testing.assert_close(model(ids), 0.75 * alone + 0.25 * ngrams(ids))
        torch.testing.assert_close(model.explain(ids)[0], model(ids))
        torch.testing.assert_close(model.explain(ids)[1].sum(1), torch.ones(3))


def test_words_beyond_the_learned_ones_are_told_apart_by_their_vectors() -> None:
    torch.manual_seed(0)
    vectors = torch.randn(40, 5)
    config = Config(embedding_size=8, hidden_size=6)
    model = Ensemble.of(config, 30, 2, None, vectors).eval()
    ids = torch.tensor([[3, 33], [3, 34], [3, UNKNOWN]])
    with torch.inference_mode():
        logits = model(ids)
        assert not torch.allclose(logits[0], logits[1])
        vectors[33] = vectors[UNKNOWN]
        torch.testing.assert_close(model(ids)[0], logits[2])
