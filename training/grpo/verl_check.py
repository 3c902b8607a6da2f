"""verl's own checks of a composed config, without a GPU: what a run would refuse after minutes, said at once.

Imports verl (about ten seconds), so only `--dry-run` calls it; a run is checked by the same rules in its TaskRunner.
"""

import contextlib
import io
import os

from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from safer_steer.errors import UserError
from safer_steer_verl.platform import attention


def check(tree: DictConfig) -> None:
    """Builds verl's typed configs of actor, rollout and algorithm, and runs verl's `validate_config`.

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
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import omega_conf_to_dataclass, validate_config

    from safer_steer_verl.utils import advantage

    advantage.register()
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said):
            get_adv_estimator_fn(config.algorithm.adv_estimator)
            for part in (config.algorithm, config.actor_rollout_ref.rollout):
                omega_conf_to_dataclass(part)
            validate_config(config, need_reference_policy(config), need_critic(config))
    except (AssertionError, ValueError, TypeError, NotImplementedError, HydraException) as error:
        raise UserError(f"verl refuses the config: {error}") from error
