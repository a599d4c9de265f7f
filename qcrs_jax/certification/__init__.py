"""Certificates from counts.

certificate.py   certify, draw, conclude, predict, search_sigma, sample_curve
estimates.py     Fixed, Tolerance, Soft: how many samples certify an image, and what their counts certify
proportions.py   the lower bounds of a probability, by name, which Fixed and Tolerance take
sequential.py    Sequential: stops when the answer is known, by a confidence sequence
procedure.py     search, selection and estimation as one compiled loop
verdict.py       certificates and predictions from counts, in float64
export.py        a certification as a program that JAX runs without this package
"""
