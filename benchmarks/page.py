"""Write `results/bench.json`, `docs/benchmarks.md` and its pictures from the kept results; nothing is measured.

python benchmarks/page.py
"""

from suite.page import PAGE, write

if __name__ == "__main__":
    write()
    print(PAGE)
