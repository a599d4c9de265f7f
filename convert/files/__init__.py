"""Readers of PyTorch files, and a writer. Nothing here knows of networks.

torch_file.py        any file of torch.save, by its format; and .safetensors
tensor.py            Storage and Tensor: a view of the numbers in the file
zip_archive.py       the zip archives of torch.save
unpickle.py          pickles as plain data
safetensors_file.py  .safetensors
stand_ins.py         other things found in the place of a checkpoint, with the remedy
torch_writer.py      writes files that torch.load reads
"""
