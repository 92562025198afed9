"""The review of a trained autoencoder, against values by hand."""

import pandas as pd
import pytest
import torch

from seqmem import models
from seqmem.data.batch import Batch
from seqmem.data.spec import DataSpec
from seqmem.training.evaluation.review import anomaly_scores, probe, review, sequence_errors


def build(frame=None, names=None):
    torch.manual_seed(0)
    channels = 2 if frame is None else frame[0] * frame[1] * (frame[2] if len(frame) == 3 else 1)
    spec = DataSpec("made up", channels, channels, "reconstruction", None, 7, frame=frame, class_names=names)
    return models.build({"network": "lstm_ae", "encoding_size": 3, "hidden_sizes": [4]}, spec)


def batches(channels, labels=True):
    made = torch.randn(3, 3, 7, channels, generator=torch.Generator().manual_seed(1))
    lengths = torch.tensor([7, 2, 1])
    return [Batch(each, each, lengths, labels=torch.tensor([0, 1, 1]) if labels else None) for each in made]


def test_the_error_of_a_sequence_is_that_of_its_valid_values():
    model, batch = build(), batches(2)[0]
    with torch.no_grad():
        outputs, errors = model(batch), sequence_errors(model, batch)
    for row, length in enumerate(batch.lengths.tolist()):
        expected = (outputs[row, :length] - batch.targets[row, :length]).square().mean()
        assert errors[row].item() == pytest.approx(expected.item(), rel=1e-5)


def test_anomaly_scores_are_deviations_above_the_usual():
    usual = 3 + 0.5 * torch.randn(200_000, generator=torch.Generator().manual_seed(0))
    found = anomaly_scores(torch.tensor([3.0, 3.5, 4.0, 2.5, 100.0]), usual)
    assert found.tolist() == pytest.approx([0, 1, 2, -1, 194], abs=0.02, rel=0.02)
    spoiled = torch.cat([usual, torch.full((100,), 1e6)])
    assert anomaly_scores(torch.tensor([4.0]), spoiled).item() == pytest.approx(2, abs=0.02)


def test_a_linear_classifier_separates_classes_that_are_separate():
    random = torch.Generator().manual_seed(0)
    labels = torch.arange(90) % 3
    centres = torch.tensor([[0.0, 5.0], [5.0, 0.0], [-5.0, -5.0]])
    codes = centres[labels] + 0.3 * torch.randn(90, 2, generator=random)
    assert probe(codes[:60], labels[:60], codes[60:], labels[60:]) == 1
    assert probe(codes[:9], torch.ones(9), codes[:4], torch.tensor([1, 0, 1, 1])) == 0.75
    assert probe(torch.randn(60, 2, generator=random), labels[:60], torch.randn(30, 2, generator=random), labels[60:]) < 0.7


@pytest.mark.parametrize(("frame", "labels"), [(None, True), ((2, 2, 3), False)])
def test_pictures_and_scores_lie_in_the_folder(frame, labels, tmp_path):
    model = build(frame)
    parts = batches(model.spec.input_size, labels)
    found = review(model, parts[:1], parts[1:2], parts[2:], tmp_path)
    assert set(found) == ({"linear_probe_accuracy"} if labels else set())
    assert {path.name for path in tmp_path.iterdir()} == {"reconstructions.png", "encodings.png", "anomalies.csv"}
    for name in ("reconstructions.png", "encodings.png"):
        assert (tmp_path / name).read_bytes()[:4] == b"\x89PNG"
    table = pd.read_csv(tmp_path / "anomalies.csv")
    assert list(table) == ["sequence", *(["label"] if labels else []), "error", "score"]
    assert len(table) == 3
    with torch.no_grad():
        assert table["error"].tolist() == pytest.approx(sequence_errors(model, parts[2]).tolist())


def test_classes_are_called_by_their_names(tmp_path):
    parts = batches(2)
    review(build(names=("dog", "$1")), parts[:1], parts[1:2], parts[2:], tmp_path)
    assert pd.read_csv(tmp_path / "anomalies.csv")["label"].tolist() == ["dog", "$1", "$1"]
