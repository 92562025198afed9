"""Review of a trained autoencoder: pictures, anomaly scores, and a linear classifier of its encodings."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from seqmem.data.batch import Batch
from seqmem.data.masks import masked, valid_steps
from seqmem.io.files import write_text
from seqmem.models.autoencoder import Autoencoder
from seqmem.results.reconstructions import plot_encodings, plot_reconstructions


@torch.no_grad()
def review(
    model: Autoencoder, train: Iterable[Batch], validation: Iterable[Batch], test: Iterable[Batch], folder: Path
) -> dict[str, Any]:
    """Write ``reconstructions.png``, ``encodings.png`` and ``anomalies.csv`` of the test split into a run's folder.

    Args:
        model: trained.
        train: batches; the linear classifier is trained on their encodings, if they have ``labels``.
        validation: batches, whose errors are the usual ones that test errors are compared with.
        test: batches.
        folder: the run's.

    Returns:
        Part of the run's record: if there are labels, ``linear_probe_accuracy``, the accuracy of the linear classifier of
        encodings on the test split.
    """
    import pandas as pd

    model.eval()
    usual = torch.cat([sequence_errors(model, batch) for batch in validation])
    batches = list(test)
    errors = torch.cat([sequence_errors(model, batch) for batch in batches])
    encodings = torch.cat([model.encode(batch) for batch in batches])
    labels, names = _labels(batches), model.spec.class_names
    plot_reconstructions(batches[0], model(batches[0]), model.spec.frame, folder / "reconstructions.png")
    plot_encodings(encodings, labels, folder / "encodings.png", names)
    table = pd.DataFrame(
        {"sequence": range(len(errors)), "error": errors.tolist(), "score": anomaly_scores(errors, usual).tolist()}
    )
    if labels is not None:
        table.insert(1, "label", [names[k] if names else k for k in labels.tolist()])
    write_text(folder / "anomalies.csv", table.to_csv(index=False))
    if labels is None:
        return {}
    train_batches = list(train)
    train_encodings = torch.cat([model.encode(batch) for batch in train_batches])
    return {"linear_probe_accuracy": probe(train_encodings, _labels(train_batches), encodings, labels)}


def sequence_errors(model: Autoencoder, batch: Batch) -> Tensor:
    """Return (B,) the mean squared error of each sequence's valid values; NaN if all of them are missing."""
    squared, lengths = (model(batch) - batch.targets).square(), batch.output_lengths
    if batch.known is not None:
        known = batch.known
        if lengths is not None:
            known = known & valid_steps(lengths, known.shape[1])[..., None]
        return squared.where(known, 0).sum((1, 2)) / known.sum((1, 2))
    squared = squared.mean(-1)
    return squared.mean(1) if lengths is None else masked(squared, lengths).sum(1) / lengths.clamp(min=1)


def anomaly_scores(errors: Tensor, usual: Tensor) -> Tensor:
    """Return (e - median) / (84th percentile - median) of errors e (n,), both of the usual errors (m,).

    For normally distributed usual errors it is the distance from the mean in standard deviations. Unlike these, median and
    percentile are robust to outliers.
    """
    middle, upper = (usual.double().nanquantile(q) for q in (0.5, 0.8413))
    return (errors.double() - middle) / (upper - middle).clamp(min=1e-12)


def probe(encodings: Tensor, labels: Any, test_encodings: Tensor, test_labels: Tensor) -> float:
    """Return the test accuracy of logistic regression on standardised encodings (n, E) of classes (n,).

    If the training has a single class, it is always predicted.
    """
    if len(labels.unique()) == 1:
        return float((test_labels == labels[0]).double().mean())
    # Imported here because it takes a second.
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=10, max_iter=2000))
    classifier.fit(encodings.double().cpu().numpy(), labels.cpu().numpy())
    return float(classifier.score(test_encodings.double().cpu().numpy(), test_labels.cpu().numpy()))


def _labels(batches: list[Batch]) -> Tensor | None:
    found = [batch.labels for batch in batches if batch.labels is not None]
    return torch.cat(found) if found else None
