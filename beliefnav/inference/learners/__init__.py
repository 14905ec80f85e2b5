"""The inverse problem: from what a learner did to what it assumes; see `searching` to begin with."""
