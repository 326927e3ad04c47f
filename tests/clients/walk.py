"""The walk through six regions: what `spillover load` saw of who really served each item."""

import collections
import json
import sys

REGIONS = {
    "eastus": "East US",
    "northcentral": "North Central US",
    "eastus2": "East US 2",
    "southcentral": "South Central US",
    "francecentral": "France Central",
    "westeurope": "West Europe",
}


def served(name):
    with open(name) as file:
        items = json.load(file)["items"]
    return collections.Counter(
        (item["status"], item["backend"], item["region"]) for item in items
    )


def main():
    alone, load = (served(name) for name in sys.argv[1:])
    assert alone == {(200, "eastus", "East US"): 1}, f"the start is eastus: {alone}"
    for (status, backend, region), count in sorted(load.items(), key=str):
        print(f"   {count:4} {status} {backend} ({region})")
        assert status == 200, "a region was free, so nothing is refused"
        assert REGIONS[backend] == region, "the region named is the one that served"
    assert load.total() == 60, load
    assert len(load) >= 4, f"only {load}"
    first = load[200, "eastus", "East US"]
    assert first <= 2, f"eastus, limited to almost nothing, served {first} more"


main()
