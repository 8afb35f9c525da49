#!/usr/bin/env python3
"""Whether the memory of a service stays flat, in predictions with changing LoRAs.

    tools/load/memory.py --binary target/release/calotype --minutes 60

Makes one picture after the other, each with another LoRA than the one before, or with none, in changing sizes. Samples the service's
memory after each. The memory is flat if a line through the samples, without those of the first tenth of the time (heaps and pools fill, files
are read for the first time), rises by less than 3 %. The exit code is 1 if it is not.
"""

import argparse
import csv
import sys
import time

from service import Service, data_uri, lora


def slope(points):
    """Of the line with the least squares."""
    count = len(points)
    x = sum(at for at, _ in points) / count
    y = sum(value for _, value in points) / count
    spread = sum((at - x) ** 2 for at, _ in points)
    return sum((at - x) * (value - y) for at, value in points) / spread if spread else 0.0


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--binary", required=True)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--loras", type=int, default=8)
    parser.add_argument("--steps", type=int, default=4, help="steps of each picture [4]")
    parser.add_argument("--csv", help="file for the samples")
    parser.add_argument("options", nargs="*", help="options of the service, after --")
    args = parser.parse_args()
    weights = [data_uri("application/octet-stream", lora(seed)) for seed in range(args.loras)] + [None]
    sizes = [(128, 128), (192, 128), (128, 256), (64, 64), (256, 256)]
    samples = []
    with Service(args.binary, *args.options) as service:
        begin = time.monotonic()
        count = 0
        while time.monotonic() - begin < 60 * args.minutes:
            width, height = sizes[count % len(sizes)]
            fields = {"prompt": "a red fox in the snow", "num_inference_steps": args.steps, "width": width, "height": height}
            if chosen := weights[count % len(weights)]:
                fields["replicate_weights"] = chosen
            service.predict(seed=count, **fields)
            count += 1
            samples.append((time.monotonic() - begin, *service.memory()))
    if args.csv:
        with open(args.csv, "w", newline="") as file:
            csv.writer(file).writerows([("seconds", "VmRSS", "RssAnon", "RssFile", "VmSwap"), *samples])
    settled = [sample for sample in samples if sample[0] >= 6 * args.minutes]
    points = [(at, anon + swap) for at, _, anon, _, swap in settled]
    hours = (points[-1][0] - points[0][0]) / 3600
    per_hour = 3600 * slope(points)
    mean = sum(value for _, value in points) / len(points)
    rise = per_hour * hours / mean
    values = [value / 1e6 for _, value in points]
    print(f"{count} predictions in {samples[-1][0] / 60:.1f} minutes, with {args.loras} LoRAs in turn and without")
    print(f"memory without files: {values[0]:.0f} MB at first, {values[-1]:.0f} MB at last, {min(values):.0f} to {max(values):.0f} MB between")
    print(f"a line through the last {len(points)} samples rises by {per_hour / 1e6:+.2f} MB an hour, {100 * rise:+.2f} % over their time")
    print("flat" if rise < 0.03 else "NOT flat")
    return 0 if rise < 0.03 else 1


if __name__ == "__main__":
    sys.exit(main())
