"""Batches made by a thread, on a stream of the GPU of its own, while a step computes."""
import itertools
import queue
import threading

import torch


class Ahead:
    """make() gives a tuple, of tensors and other values; next() hands the tuples on in their order. refresh() is called before each tenth."""

    def __init__(self, make, device, depth=2, refresh=lambda: None):
        self.make, self.refresh, self.queue, self.over = make, refresh, queue.Queue(depth), False
        self.stream = None
        if device == "cuda":
            torch.cuda.synchronize()  # what make() uses is there before its stream begins
            self.stream = torch.cuda.Stream()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        try:
            with torch.no_grad(), torch.cuda.stream(self.stream):
                for i in itertools.count():
                    if self.over:
                        break
                    if i % 10 == 0:
                        self.refresh()
                    made = self.make()
                    self.queue.put((made, self.stream and self.stream.record_event()))
        except Exception as error:  # next() raises it
            self.queue.put((error, None))

    def next(self):
        made, ready = self.queue.get()
        if isinstance(made, Exception):
            raise made
        if ready is not None:
            now = torch.cuda.current_stream()
            now.wait_event(ready)
            for value in made:
                if torch.is_tensor(value):
                    value.record_stream(now)
        return made

    def close(self):
        self.over = True
        while self.thread.is_alive():
            try:
                self.queue.get(timeout=0.1)
            except queue.Empty:
                pass
        self.thread.join()
