"""Sweeps: from words to members (axes, plan), from members to runs (launchers, search), and what they say meanwhile
(progress, board). A member is an ordinary run of `experiments.train`; nothing else here trains."""
