"""Calibration: a judge or tutor against a gold set whose labels follow from the miniature world's rules."""
