"""Train a model on a data set over several seeded trials, and print one table: ``python train.py --help``."""

import sys
from importlib.util import find_spec

if find_spec("seqmem") is None:
    sys.exit("error: seqmem is not installed for this Python; run `make setup` and use .venv/bin/python")

from seqmem.io import interrupts

if __name__ == "__main__":  # before imports that take seconds
    interrupts.install()

import hydra
from omegaconf import DictConfig

from seqmem.cli import commandline, jobs, messages, startup
from seqmem.cli.run import run


@hydra.main(version_base="1.3", config_path="cfg", config_name="config")
def train(composed: DictConfig) -> float | None:
    """Train the model that a command line describes.

    Args:
        composed: the config that Hydra composed from cfg/ and the command line.

    Returns:
        The mean of the validation metric over the trials, for a search to optimise; None if the job failed, or its trials may
        not have ended.
    """
    with messages.one_line_errors(resumes=True):
        config = commandline.resolve(composed)

        with jobs.reported(config) as job:
            from seqmem import training
            from seqmem.training.engines import trials  # noqa: F401

            startup.resume_collector()
            data = job.load()
            job.begin(training.experiment(config, data))
            job.train(data)
        return job.validation_mean()
    return None


if __name__ == "__main__":
    run(train)
