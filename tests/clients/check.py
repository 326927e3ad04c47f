"""Compares what the crowd was told with what its upstreams did; says what was lost or doubled."""

import argparse
import collections
import sys


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--told", nargs="+", required=True, help="files that crowd wrote")
    parser.add_argument("--done", nargs="+", required=True, help="logs that counted wrote")
    parser.add_argument("--all-whole", action="store_true", help="nothing may fail at all")
    parser.add_argument("--at-least", type=int, default=1, help="how many must be whole")
    options = parser.parse_args()

    told = [line.split() for name in options.told for line in open(name)]
    begun, finished = collections.Counter(), collections.Counter()
    for name in options.done:
        for line in open(name):
            what, user = line.split()
            (begun if what == "begun" else finished)[user] += 1

    wrong = []
    ids = collections.Counter(line[0] for line in told)
    for user, times in begun.items():
        if times > 1:
            wrong.append(f"{user} was begun {times} times")
        if user not in ids:
            wrong.append(f"{user} was begun, and nobody was told how it ended")
    for user, status, ended, *rest in told:
        if ended in ("short", "wrong") and status == "200":
            wrong.append(f"{user} ended {ended}")
        if ended == "whole" and finished[user] != 1:
            wrong.append(f"{user} is whole, and was finished {finished[user]} times")
        if options.all_whole and (status, ended) != ("200", "whole"):
            wrong.append(f"{user}: {status} {ended} {' '.join(rest)}")
    whole = sum(line[1] == "200" and line[2] == "whole" for line in told)
    if whole < options.at_least:
        wrong.append(f"only {whole} are whole")

    ends = collections.Counter(f"{line[1]} {line[2]}" for line in told)
    backends = collections.Counter(line[3] for line in told if line[1] == "200")
    print("   ends:", dict(ends), "backends:", dict(backends))
    for line in wrong[:10]:
        print("   WRONG:", line)
    if len(wrong) > 10:
        print(f"   and {len(wrong) - 10} more")
    sys.exit(bool(wrong))


main()
