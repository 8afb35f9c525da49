"""A set on disk: a folder of parts. A part appears whole; more can arrive while others read.

    SET/PART/images.npy      uint8, PART × 128 × 128 × 3
    SET/PART/masks.npy       uint8, PART × 128 × 128: what of the picture the thing covers
    SET/PART/captions.jsonl  what each picture shows, and its caption
"""
import json
import os

import numpy as np

PART, SIZE = 250, 128


def write_part(folder, name, examples):
    """Writes (picture, cover, row)s, and renames the part into its place."""
    images, masks, rows = zip(*((np.asarray(picture), np.asarray(cover), row) for picture, cover, row in examples))
    fresh = folder / f"{name}.tmp"
    fresh.mkdir(parents=True, exist_ok=True)
    np.save(fresh / "images.npy", np.stack(images))
    np.save(fresh / "masks.npy", np.stack(masks))
    (fresh / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    os.rename(fresh, folder / name)


def parts(folder, known=()):
    """The parts that are there, but for those known."""
    return [path for path in sorted(folder.glob("*-*")) if path.suffix != ".tmp" and path not in known]


def read_rows(part):
    return [json.loads(line) for line in open(part / "captions.jsonl")]


class Pictures:
    """A set, as far as it is there at the last refresh."""

    def __init__(self, folder):
        self.folder, self.known, self.rows, self.arrays, self.starts = folder, [], [], {"images": [], "masks": []}, [0]
        self.refresh()

    def refresh(self):
        for part in parts(self.folder, self.known):
            self.known.append(part)
            self.rows += read_rows(part)
            for name, arrays in self.arrays.items():
                arrays.append(np.load(part / f"{name}.npy", mmap_mode="r"))
        self.starts = np.cumsum([0] + [len(x) for x in self.arrays["images"]])

    def __len__(self):
        return int(self.starts[-1])

    def _take(self, name, indices):
        indices = np.asarray(indices)
        part = np.searchsorted(self.starts, indices, "right") - 1
        return np.stack([self.arrays[name][p][i - self.starts[p]] for p, i in zip(part, indices)])

    def images(self, indices):
        """uint8 (n, 128, 128, 3)"""
        return self._take("images", indices)

    def masks(self, indices):
        """uint8 (n, 128, 128)"""
        return self._take("masks", indices)
