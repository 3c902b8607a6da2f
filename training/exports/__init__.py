"""Finished dialogue rows in other trainers' formats: TRL `messages`, LLaMA-Factory ShareGPT, verl parquet."""
