"""Imported before torch: threads that wait do not spin. On a busy machine that alone makes a step several times faster."""
import os
import time

BEGAN = time.time()  # importing torch and the rest is part of a training's minutes
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("KMP_BLOCKTIME", "0")
