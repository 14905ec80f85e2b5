"""The inverse problem: what a learner assumes, from what it did; `inferring` to begin with."""
