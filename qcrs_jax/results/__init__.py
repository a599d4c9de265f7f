"""Results files: the lasting record of a run. No module here needs JAX.

records.py        lines and runs, ours and those of other programs
writer.py         line by line, whole or not at all, resumed where it was cut
sidecar.py        the fields of a sidecar, and their limits
shards.py         files of machines that knew nothing of each other, as one run
account.py        the meaning of alpha over a data set
metrics.py        ACR, certified accuracy, and their intervals
stored_balls.py   the memory-based post-processing
"""
