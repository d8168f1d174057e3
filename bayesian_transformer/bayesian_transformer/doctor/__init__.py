"""`tokur doctor`: what is installed, and whether it works on this machine.

Reading order: command.py (the command), checks.py (the table of checks), examination.py (in which order they run),
process.py with child.py and protocol.py (each in a process of its own), screen.py (the lines and the JSON document).
What the checks do is in installed.py, packages.py and, for whatever computes, in comparisons/. Only they import torch.
"""
