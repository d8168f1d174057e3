"""How strong may the noise be? What each sigma does to a model on the user's own texts: `tokur sigma`.

Reading order: texts.py (which files are read), measuring.py (one text under several sigmas), summary.py (all texts at
one sigma), choosing.py (which sigma to recommend, and which to try next), labelled.py (detection, where gold answers
are known), search.py (all texts, and the table), command.py.
"""
