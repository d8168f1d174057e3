"""What computes, compared with the plain formulas: kernels, the attention of particle rows, an engine, scoring.

Everything is made on the spot from fixed seeds; no file of a model and no test module is needed.
"""
