"""Evaluation: inference against a model, a judge's verdict on every turn, pass rates, survival analysis and a report
people read.
"""
