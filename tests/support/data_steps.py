"""One step of data construction, whatever the config's `steps` are."""

from data_construction.config import DataConfig, Step
from data_construction.pipeline import main


def run_step(name: Step, config: DataConfig) -> None:
    """Runs the step alone."""
    main(config.model_copy(update={"steps": [name]}))
