"""Results files: what a run keeps. No module here needs JAX.

records.py        lines and runs, ours and those of other programs
writer.py         line by line, whole or not at all, resumed where it was cut
sidecar.py        what a sidecar may hold
shards.py         files of machines that knew nothing of each other, as one run
account.py        what alpha amounts to
metrics.py        ACR, certified accuracy, and their intervals
stored_balls.py   the memory-based post-processing
"""
