"""Stage III: data preparation and launch of tutor-in-the-loop GRPO; verl with `safer_steer_verl` does the training."""
