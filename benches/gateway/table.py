"""Turns the figures of the runs into a table in Markdown: medians over the rounds."""

import collections
import datetime
import os
import re
import statistics
import sys

NAMES = {
    "hyper": "bare hyper proxy",
    "percore": "the same, a runtime per core",
    "spillover": "**spillover**",
    "envoy": "Envoy",
    "litellm": "LiteLLM",
    "portkey": "Portkey",
}


def main():
    figures, rss, missing = collections.defaultdict(list), {}, set()
    for line in open(sys.argv[1]):
        peer, what, *rest = line.split()
        if what == "missing":
            missing.add(peer)
        elif what == "rss":
            rss[peer] = int(rest[0]) / 1024
        else:
            figures[peer, what].append([float(figure) for figure in rest])

    def median(peer, what, column):
        return statistics.median(row[column] for row in figures[peer, what])

    direct50, direct99 = median("direct", "one", 0), median("direct", "one", 1)
    hyper = median("hyper", "many", 2) if figures["hyper", "many"] else None
    percore = median("percore", "many", 2) if figures["percore", "many"] else None
    print(f"\n{datetime.date.today():%d %B %Y}, {os.cpu_count()} cores of {cpu()}, medians of "
          f"{len(figures['direct', 'one'])} rounds by turns; direct at one connection: "
          f"p50 {direct50:.0f} us, p99 {direct99:.0f} us.\n")
    print("| proxy | p50 added, 1 connection | p99 added | requests/s, 64 connections "
          "| of bare hyper | of it per core | p50, 64 | p99, 64 | idle memory |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|")
    direct = median("direct", "many", 2)
    print(f"| direct | | | {direct:,.0f} | {share(direct, hyper)} | {share(direct, percore)} | {ms(median('direct', 'many', 0))} "
          f"| {ms(median('direct', 'many', 1))} | |")
    for peer in sys.argv[2:]:
        if peer in missing:
            print(f"| {NAMES[peer]} | could not be installed or did not answer | | | | | | | |")
            continue
        rate = median(peer, "many", 2)
        bad = sum(row[3] for what in ("one", "many") for row in figures[peer, what])
        remark = f" ({bad:.0f} errors)" if bad else ""
        print(f"| {NAMES[peer]}{remark} | {ms(median(peer, 'one', 0) - direct50)} "
              f"| {ms(median(peer, 'one', 1) - direct99)} | {rate:,.0f} | {share(rate, hyper)} "
              f"| {share(rate, percore)} "
              f"| {ms(median(peer, 'many', 0))} | {ms(median(peer, 'many', 1))} "
              f"| {rss[peer]:.0f} MiB |")


def share(rate, hyper):
    return f"{100 * rate / hyper:.0f} %" if hyper else ""


def ms(us):
    return f"{us / 1000:.2f} ms"


def cpu():
    names = re.findall(r"^model name\s*: (.*)", open("/proc/cpuinfo").read(), re.M)
    return names[0] if names else os.uname().machine


main()
