"""Experiments of many trainings: methods compared, label curve, prevalence; and the measurement of speed.

May import any package above it. Begin with `experiment.py`, and with `jobs.py`, which runs the trainings.
"""
