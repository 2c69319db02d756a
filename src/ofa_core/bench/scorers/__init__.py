"""Published scorers, one file a family: fed sample by sample, equal to the official code to its digits.

Every scorer has ``add``, which takes one sample and returns its own score where it has one, and ``result``, a plain
dict of floats, shares of 1 and not of 100. A score over no samples at all is left out, unless its scorer
says otherwise.
"""
