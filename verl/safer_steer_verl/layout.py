"""The section `safer_steer.layout`: what the nodes of a Stage III run have, and which GPUs are whose. Engine-free."""

from typing import Annotated

from pydantic import Field

from safer_steer.config import Section


class LayoutConfig(Section):
    """What the checks before a run compare with; None where it is not said."""

    node_gpus: Annotated[int, Field(ge=1)] | None = None
    """GPUs of one node."""
    gpu_gb: Annotated[float, Field(gt=0)] | None = None
    """Memory of one GPU, 10^9 bytes."""
    tutor_gpus: Annotated[int, Field(ge=0)] | None = None
    """GPUs that the tutor's server takes on the trainer's node; 0: none there (a tunnel or a proxy listens there)."""
    one_machine: bool = False
    """All Ray nodes are on this machine, as in a test: a loopback address reaches the tutor."""
