"""Judge a fit: what a careful colleague would object to, from small sums of its last pass.

`evidence` says what the last pass leaves, `order` puts the warnings in order; the other modules hold detectors.
A detector is a pure function of small arrays on the host: it returns a `ResultWarning` or None, says nothing where it
cannot decide, and never raises. Thresholds are in units of the noise, ``sqrt(phi y)`` with the variance index phi of
the data, so gain and unit need not be known. Each detector's docstring has its threshold and its measured false alarms.
"""
