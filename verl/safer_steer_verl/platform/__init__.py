"""verl 0.9.1 and vLLM 0.24.0 on a machine without a GPU, and one fix of verl that GPUs need too."""
