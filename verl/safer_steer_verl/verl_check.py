"""verl's own checks of a config, without a GPU: what a run would refuse after minutes, said at once.

Imports verl (about ten seconds): only `--dry-run` and a run's own first worker call it.
"""

import contextlib
import io
import os

from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from safer_steer.errors import UserError
from safer_steer_verl.platform import attention


def dry_check(tree: DictConfig) -> None:
    """Builds verl's typed configs of rollout and algorithm from a composed config, and validates it as a run does.

    Args:
        tree: the composed config; its model need not exist.

    Raises:
        UserError: verl refuses the config, in verl's words.
    """
    config = OmegaConf.create(OmegaConf.to_container(tree, resolve=False))
    attention.apply(config)
    config = OmegaConf.create(OmegaConf.to_container(config, resolve=True))
    if config.trainer.device == "cpu":
        os.environ.setdefault("VERL_PLATFORM", "cpu")
        os.environ.setdefault("VERL_USE_EXTERNAL_MODULES", "safer_steer_verl.platform.cpu")
        import safer_steer_verl.platform.cpu  # noqa: F401  verl itself does this at its first import only
    from verl.trainer.ppo.core_algos import get_adv_estimator_fn
    from verl.utils.config import omega_conf_to_dataclass

    from safer_steer_verl import estimators

    estimators.register()
    with _in_words(), contextlib.redirect_stdout(io.StringIO()):
        get_adv_estimator_fn(config.algorithm.adv_estimator)
        for part in (config.algorithm, config.actor_rollout_ref.rollout):
            omega_conf_to_dataclass(part)
        check(config)


def check(config: DictConfig) -> None:
    """Verl's `validate_config` of a resolved config.

    Raises:
        UserError: verl refuses the config, in verl's words.
    """
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import validate_config

    with _in_words():
        validate_config(config, need_reference_policy(config), need_critic(config))


@contextlib.contextmanager
def _in_words():
    try:
        yield
    except (AssertionError, ValueError, TypeError, NotImplementedError, HydraException) as error:
        raise UserError(f"verl refuses the config: {error}") from error
