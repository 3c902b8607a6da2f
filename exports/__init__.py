"""Finished work in the formats of others: rows for trainers, evaluations as inspect logs, model and dataset cards."""
