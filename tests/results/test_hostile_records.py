"""Records from untrusted sources: damage is named in one line, and nothing in them is executed."""

import pytest

from seqmem import results
from seqmem.errors import UserError
from tests.results.synthetic import configuration, write_run

DAMAGE = [
    ("record.json", "{", "record.json is damaged"),
    ("record.json", "\xff", "record.json is damaged"),
    ("record.json", "[" * 100_000, "record.json is damaged"),
    ("record.json", "[]", "record.json is damaged"),
    ("record.json", '{"status": "finished"}', "record.json has no valid dataset, model, group, seed"),
    (
        "record.json",
        '{"status": "finished", "group": 1, "dataset": 1, "model": 1, "seed": 0}',
        "record.json has no valid dataset, model, group",
    ),
    ("config.yaml", "a: [", "config.yaml is damaged"),
    ("config.yaml", "!!python/object/apply:pathlib.Path.touch [marker]", "config.yaml is damaged"),
    ("config.yaml", "3", "config.yaml is not a config of a trial"),
]


def test_damaged_records_are_named_and_not_executed(tmp_path, monkeypatch):
    for k, (name, content, message) in enumerate(DAMAGE):
        folder = tmp_path / str(k)
        run = write_run(folder / "seed_0", configuration(), epochs=1)
        monkeypatch.chdir(folder)
        (run.path / name).write_bytes(content.encode("latin-1"))
        [group] = results.group_trials(results.find_runs(folder))
        [reason] = [run.reason for run in group.unfinished] or [group.note]
        assert message in reason
        assert not (folder / "marker").exists()
        assert (run.finished() is None) == (name == "record.json")


def test_damaged_metrics_are_named(tmp_path):
    run = write_run(tmp_path / "seed_0", configuration(), epochs=1)
    for content in [b"", b"step,val/loss\n1,2\n", b"epoch\n1,2,3\n1\n\xff\xfe", b'epoch,"a\n1']:
        (run.path / "metrics.csv").write_bytes(content)
        with pytest.raises(UserError, match=r"metrics.csv is damaged \("):
            run.read_metrics()
