"""The walk through six regions: a small load, and who really served each item."""

import collections
import json
import os
import sys
import threading
import urllib.error
import urllib.request

BASE, KEY = os.environ["GATEWAY_URL"], os.environ["GATEWAY_KEY"]
REGIONS = {
    "eastus": "East US",
    "northcentral": "North Central US",
    "eastus2": "East US 2",
    "southcentral": "South Central US",
    "francecentral": "France Central",
    "westeurope": "West Europe",
}
PATH = "/openai/deployments/gpt-35-turbo/chat/completions?api-version=2024-10-21"


def item(number):
    body = {
        "messages": [{"role": "user", "content": f"Count to {50 + number}"}],
        "temperature": 0,
        "max_tokens": 50,
    }
    request = urllib.request.Request(
        BASE + PATH,
        json.dumps(body).encode(),
        {"content-type": "application/json", "api-key": KEY},
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            json.load(answer)
            headers = answer.headers
            return answer.status, headers["x-spillover-backend"], headers["x-ms-region"]
    except urllib.error.HTTPError as error:
        return error.code, error.headers["x-spillover-backend"], error.headers["x-ms-region"]


def main():
    items, lock, results = iter(range(60)), threading.Lock(), []

    def work():
        while True:
            with lock:
                number = next(items, None)
            if number is None:
                return
            results.append(item(number))

    # One alone first: it goes to the region that was made the start.
    results.append(item(0))
    assert results[0] == (200, "eastus", "East US"), results[0]
    threads = [threading.Thread(target=work) for _ in range(5)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    for (status, backend, region), count in sorted(collections.Counter(results).items()):
        print(f"   {count:4} {status} {backend} ({region})")
        assert status == 200, "a region was free, so nothing is refused"
        assert REGIONS[backend] == region, "the region named is the one that served"
    served = {backend for _, backend, _ in results}
    assert len(served) >= 4, f"only {served}"
    first = sum(backend == "eastus" for _, backend, _ in results)
    assert first <= 3, f"eastus, limited to almost nothing, served {first}"
    sys.exit(0)


main()
