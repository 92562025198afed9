"""``seqmem train``, and ``python train.py`` in a checkout: train a model on a data set over several seeded trials."""

import hydra
from omegaconf import DictConfig

from seqmem.cli import commandline, jobs, messages, startup
from seqmem.cli.choices import CONFIGS
from seqmem.cli.run import run


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
            from seqmem.training.engines import trials  # noqa: F401 - the last of the imports that take seconds

            startup.resume_collector()
            data = job.load()
            job.begin(training.experiment(config, data))
            job.train(data)
        return job.validation_mean()
    return None


def main() -> None:
    """Train as ``sys.argv`` says."""
    run(hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name="config")(train))
