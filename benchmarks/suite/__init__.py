"""The benchmarks as one suite: its parts, what their results say, the page and its pictures."""
