#!/usr/bin/env python3
"""Writes crates/sdxl/tests/golden/faces/: what MediaPipe finds in pictures with faces, and the pictures.

    python3.11 -m venv faces && faces/bin/pip install mediapipe==0.10.21 scikit-image==0.26.0 matplotlib==3.11.2
    faces/bin/python faces.py

- `astronaut.png`, `hopper.png`: parts of a portrait by NASA (in scikit-image) and of one by the US Navy (in matplotlib), both in the public domain.
- `photographer.png`: a man in profile, part of `camera.png` in scikit-image, which its photographer, Lav Varshney, has dedicated to the public (CC0).
- `faces.json`: for each picture its parts (file, a number of quarter turns, whether it is mirrored, place) on a grey canvas, and what is found in it: score, box
  (x, y, width, height of the picture's), six points, and the 468 landmarks in pixels (null: no face there).

MediaPipe's own graphs run: the full-range detector, and for each of its boxes the landmarks straight from that box (FaceMesh looks for the face
again first)."""

import json
import pathlib

import matplotlib.cbook
import mediapipe as mp
import numpy as np
import skimage
from google.protobuf import text_format
from mediapipe.framework import calculator_pb2
from mediapipe.python._framework_bindings import resource_util
from PIL import Image

OUT = pathlib.Path(__file__).resolve().parents[3] / "crates/sdxl/tests/golden/faces"
FIND = """
input_stream: "image"
output_stream: "detections"
output_stream: "rects"
node { calculator: "FaceDetectionFullRangeCpu" input_stream: "IMAGE:image" output_stream: "DETECTIONS:detections" }
node { calculator: "ImagePropertiesCalculator" input_stream: "IMAGE:image" output_stream: "SIZE:size" }
node { calculator: "BeginLoopDetectionCalculator" input_stream: "ITERABLE:detections" input_stream: "CLONE:size"
  output_stream: "ITEM:detection" output_stream: "CLONE:one_size" output_stream: "BATCH_END:end" }
node { calculator: "FaceDetectionFrontDetectionToRoi" input_stream: "DETECTION:detection" input_stream: "IMAGE_SIZE:one_size" output_stream: "ROI:rect" }
node { calculator: "EndLoopNormalizedRectCalculator" input_stream: "ITEM:rect" input_stream: "BATCH_END:end" output_stream: "ITERABLE:rects" }
"""
LANDMARKS = """
input_stream: "image"
input_stream: "rect"
input_side_packet: "with_attention"
output_stream: "landmarks"
node { calculator: "FaceLandmarkCpu" input_stream: "IMAGE:image" input_stream: "ROI:rect" input_side_packet: "WITH_ATTENTION:with_attention"
  output_stream: "LANDMARKS:landmarks" }
"""


resource_util.set_resource_dir(str(pathlib.Path(mp.__file__).parents[1]))


def run(text, inputs, outputs, side={}):
    """The packets that a graph makes of one image."""
    config = calculator_pb2.CalculatorGraphConfig()
    text_format.Parse(text, config)
    graph, found = mp.CalculatorGraph(graph_config=config), {}
    for name in outputs:
        graph.observe_output_stream(name, lambda name, packet: found.update({name: packet}))
    graph.start_run({name: mp.packet_creator.create_bool(value) for name, value in side.items()})
    for name, packet in inputs.items():
        graph.add_packet_to_input_stream(name, packet.at(0))
    graph.close_all_packet_sources()
    graph.wait_until_done()
    return found


def faces(picture):
    height, width, _ = picture.shape
    image = lambda: mp.packet_creator.create_image_frame(image_format=mp.ImageFormat.SRGB, data=np.ascontiguousarray(picture))
    found = run(FIND, {"image": image()}, ["detections", "rects"])
    if "rects" not in found:
        return []
    rects = mp.packet_getter.get_proto_list(found["rects"])
    result = []
    for detection, rect in zip(mp.packet_getter.get_proto_list(found["detections"]), rects):
        inputs = {"image": image(), "rect": mp.packet_creator.create_proto(rect)}
        points = run(LANDMARKS, inputs, ["landmarks"], {"with_attention": False}).get("landmarks")
        if points is not None:
            points = mp.packet_getter.get_proto(points).landmark
            points = [[round(p.x * width, 3), round(p.y * height, 3)] for p in points]
        box = detection.location_data.relative_bounding_box
        six = [[round(p.x, 6), round(p.y, 6)] for p in detection.location_data.relative_keypoints]
        box = [round(v, 6) for v in (box.xmin, box.ymin, box.width, box.height)]
        result.append({"score": round(detection.score[0], 6), "box": box, "points": six, "landmarks": points})
    return result


def composed(size, parts):
    """Parts (file, quarter turns against the clock, mirrored, x, y) on a grey canvas of a size; they may reach beyond it."""
    canvas = np.full((size[1], size[0], 3), 128, np.uint8)
    for name, turns, mirrored, left, top in parts:
        part = np.rot90(np.asarray(Image.open(OUT / name).convert("RGB")), turns)
        part = part[:, ::-1] if mirrored else part
        x0, y0 = max(left, 0), max(top, 0)
        part = part[y0 - top : size[1] - top, x0 - left : size[0] - left]
        canvas[y0 : y0 + part.shape[0], x0 : x0 + part.shape[1]] = part
    return canvas


A, H, P = "astronaut.png", "hopper.png", "photographer.png"
PICTURES = {
    "astronaut": ((256, 256), [(A, 0, False, 0, 0)]),
    "hopper": ((240, 240), [(H, 0, False, 0, 0)]),
    "mirrored": ((256, 256), [(A, 0, True, 0, 0)]),
    "on its side": ((240, 240), [(H, 1, False, 0, 0)]),
    "on its other side": ((256, 256), [(A, 3, False, 0, 0)]),
    "upside down": ((256, 256), [(A, 2, False, 0, 0)]),
    "several": ((800, 600), [(A, 0, False, 20, 30), (H, 0, False, 300, 10), (A, 0, True, 530, 320), (H, 0, True, 120, 350)]),
    "two": ((520, 256), [(A, 0, False, 0, 0), (H, 0, False, 270, 8)]),
    "tall": ((256, 1111), [(A, 0, False, 0, 700)]),
    "wide": ((1501, 260), [(H, 0, False, 640, 5)]),
    "cut on the left": ((256, 256), [(A, 0, False, -95, 0)]),
    "cut on the right": ((240, 240), [(H, 0, False, 90, 0)]),
    "cut above": ((240, 240), [(H, 0, False, 0, -75)]),
    "cut below": ((256, 256), [(A, 0, False, 0, 125)]),
    "tiny": ((1900, 1300), [(A, 0, False, 1200, 700)]),
    "none": ((256, 256), []),
    "profile": ((256, 256), [(P, 0, False, 0, 0)]),
    "profile to the left": ((256, 256), [(P, 0, True, 0, 0)]),
    "profile beside another": ((520, 300), [(P, 0, False, 10, 30), (H, 0, False, 275, 40)]),
}


def main():
    astronaut = skimage.data.astronaut()[0:256, 100:356]
    hopper = np.asarray(Image.open(matplotlib.cbook.get_sample_data("grace_hopper.jpg")).convert("RGB"))
    for name, picture in [(A, astronaut), (H, hopper[60:540, 16:496])]:
        picture = Image.fromarray(picture)
        picture.resize((240, 240), Image.Resampling.BOX).save(OUT / name, optimize=True) if name == H else picture.save(OUT / name, optimize=True)
    Image.fromarray(skimage.data.camera()[20:276, 60:316]).save(OUT / P, optimize=True)
    golden = {}
    for name, (size, parts) in PICTURES.items():
        golden[name] = {"size": size, "parts": parts, "faces": faces(composed(size, parts))}
        print(name, [(f["score"], f["box"], f["landmarks"] is not None) for f in golden[name]["faces"]])
    (OUT / "faces.json").write_text(json.dumps(golden, separators=(",", ":")) + "\n")


main()
