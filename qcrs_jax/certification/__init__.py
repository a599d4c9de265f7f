"""Counts to certificates.

certificate.py   certify, draw, conclude, predict, search_sigma, sample_curve
estimates.py     how many samples certify an image, and what follows: Fixed, Tolerance, Soft
proportions.py   the lower bounds of a probability, by name, that Fixed and Tolerance take
sequential.py    Sequential: stops when it knows, by a confidence sequence
procedure.py     search, selection and estimation as one compiled loop
verdict.py       the certificates and answers that follow from counts, in float64
export.py        a certification as a program that JAX runs without this package
"""
