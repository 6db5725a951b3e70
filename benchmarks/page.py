"""Write `results/bench.json`, `docs/benchmarks.md` and its pictures from the kept results; nothing is measured.

Tables of results in other pages are written again, too.

python benchmarks/page.py
"""

from suite.page import PAGE, write, write_tables

if __name__ == "__main__":
    write()
    write_tables()
    print(PAGE)
