"""Tables that are larger than memory: read in parts, and kept as memory-mapped arrays on disk.

A *part* is a range of rows of one file. Two passes over the parts, by several processes, find out
what the kinds of columns need to know (`survey_parts`) and encode the rows (`encode_parts`). The
result for each part is a file, so that a stopped pass continues and only changed files are read
again. `StoredRows` is the source of the encoded rows.
"""
