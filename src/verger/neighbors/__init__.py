"""The photos most like each photo of a result, by the cosine of their features.

::

    rows.py     the vectors of a stored table, a few thousand at a time
    tasks.py    some rows to each of Spark's tasks, and what they find
    exact.py    every row against every other, block by block
    index.py    an approximate index by faiss, kept beside the features
"""
