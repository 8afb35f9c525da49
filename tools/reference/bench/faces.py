"""Face detector and landmarks: milliseconds a picture of MediaPipe and calotype, in turns.

    faces/bin/python tools/reference/bench/faces.py --binary target/release/examples/words [--threads 1 2] [--turns 5]

Needs the environment of golden/faces.py. Both decode the picture outside of the time, detect faces (full range), and find the landmarks of each face
straight from its box, as golden/faces.py does, with MediaPipe's graph started once. Each turn is a process of its own, which may use as many CPUs as
there are threads; it does each picture 40 times in a row, and leaves out the first 10. "trainer" is what the published trainer calls: FaceDetection, then
FaceMesh on the box, which looks for the face again."""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

GOLDEN = Path(__file__).resolve().parents[3] / "crates/sdxl/tests/golden/faces"
TIMES, LEFT_OUT = 40, 10
GRAPH = """
input_stream: "image"
input_side_packet: "with_attention"
output_stream: "detections"
output_stream: "meshes"
node { calculator: "FaceDetectionFullRangeCpu" input_stream: "IMAGE:image" output_stream: "DETECTIONS:detections" }
node { calculator: "ImagePropertiesCalculator" input_stream: "IMAGE:image" output_stream: "SIZE:size" }
node { calculator: "BeginLoopDetectionCalculator" input_stream: "ITERABLE:detections" input_stream: "CLONE:size"
  output_stream: "ITEM:detection" output_stream: "CLONE:one_size" output_stream: "BATCH_END:detections_end" }
node { calculator: "FaceDetectionFrontDetectionToRoi" input_stream: "DETECTION:detection" input_stream: "IMAGE_SIZE:one_size" output_stream: "ROI:found" }
node { calculator: "EndLoopNormalizedRectCalculator" input_stream: "ITEM:found" input_stream: "BATCH_END:detections_end"
  output_stream: "ITERABLE:rects" }
node { calculator: "BeginLoopNormalizedRectCalculator" input_stream: "ITERABLE:rects" input_stream: "CLONE:image"
  output_stream: "ITEM:rect" output_stream: "CLONE:one_image" output_stream: "BATCH_END:rects_end" }
node { calculator: "FaceLandmarkCpu" input_stream: "IMAGE:one_image" input_stream: "ROI:rect" input_side_packet: "WITH_ATTENTION:with_attention"
  output_stream: "LANDMARKS:mesh" }
node { calculator: "EndLoopNormalizedLandmarkListVectorCalculator" input_stream: "ITEM:mesh" input_stream: "BATCH_END:rects_end"
  output_stream: "ITERABLE:meshes" }
"""


def make(folder):
    """The pictures to be timed: one face at two sizes, and four faces."""
    one, other = (Image.open(GOLDEN / f"{name}.png").convert("RGB") for name in ("astronaut", "hopper"))
    several = Image.new("RGB", (1024, 768), (128, 128, 128))
    for i, face in enumerate((one, other, other.transpose(Image.Transpose.FLIP_LEFT_RIGHT), one.transpose(Image.Transpose.FLIP_LEFT_RIGHT))):
        several.paste(face, (120 + i % 2 * 480, 60 + i // 2 * 380))
    pictures = {"1 face, 256 x 256": one, "1 face, 2048 x 2048": one.resize((2048, 2048), Image.Resampling.BICUBIC), "4 faces, 1024 x 768": several}
    paths = {}
    for i, (name, picture) in enumerate(pictures.items()):
        paths[name] = folder / f"{i}.png"
        picture.save(paths[name])
    return paths


def graph():
    """The same steps as calotype's: functions that make an image of a picture, and that count an image's faces."""
    import mediapipe as mp
    from google.protobuf import text_format
    from mediapipe.framework import calculator_pb2
    from mediapipe.python._framework_bindings import resource_util
    resource_util.set_resource_dir(str(Path(mp.__file__).parents[1]))
    config, meshes, clock = calculator_pb2.CalculatorGraphConfig(), [], iter(range(1, 1 << 30))
    text_format.Parse(GRAPH, config)
    running = mp.CalculatorGraph(graph_config=config)
    running.observe_output_stream("meshes", lambda _, packet: meshes.append(packet))
    running.start_run({"with_attention": mp.packet_creator.create_bool(False)})

    def image_of(picture):
        return mp.packet_creator.create_image_frame(image_format=mp.ImageFormat.SRGB, data=picture)

    def find(image):
        meshes.clear()
        running.add_packet_to_input_stream("image", image.at(next(clock)))
        running.wait_until_idle()
        return len(mp.packet_getter.get_proto_list(meshes[0])) if meshes else 0
    return image_of, find


def trainer():
    """As the published trainer finds faces."""
    import mediapipe as mp
    detector = mp.solutions.face_detection.FaceDetection(model_selection=1, min_detection_confidence=0.1)
    mesh = mp.solutions.face_mesh.FaceMesh(static_image_mode=True, max_num_faces=1, min_detection_confidence=0.1)

    def find(picture):
        height, width, _ = picture.shape
        found = 0
        for detection in detector.process(picture).detections or []:
            box = detection.location_data.relative_bounding_box
            left, top = (max(0, int(v)) for v in (box.xmin * width, box.ymin * height))
            part = picture[top : top + int(box.height * height), left : left + int(box.width * width)]
            found += mesh.process(np.ascontiguousarray(part)).multi_face_landmarks is not None
        return found
    return (lambda picture: picture), find


def peer(kind, paths):
    """MediaPipe, in this process: a line of JSON for each picture."""
    image_of, find = {"graph": graph, "trainer": trainer}[kind]()
    for path in paths:
        image = image_of(np.asarray(Image.open(path).convert("RGB")))
        begun = time.perf_counter()
        faces = find(image)
        print(json.dumps({"faces": faces, "seconds": time.perf_counter() - begun}), flush=True)


def turn(command, threads):
    """For each picture the number of faces, and the milliseconds of the later times."""
    env = os.environ | {"RAYON_NUM_THREADS": str(threads), "GLOG_minloglevel": "2"}
    cpus = sorted(os.sched_getaffinity(0))[:threads]
    out = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=env, check=True,
                         preexec_fn=lambda: os.sched_setaffinity(0, cpus)).stdout
    lines = [json.loads(line) for line in out.splitlines()]
    pictures = [lines[i : i + TIMES] for i in range(0, len(lines), TIMES)]
    return [(part[-1]["faces"], [1e3 * line["seconds"] for line in part[LEFT_OUT:]]) for part in pictures]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=Path)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--peer", nargs="+", help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.peer:
        return peer(a.peer[0], a.peer[1:])
    print("milliseconds a picture: the best, the median\n")
    print("| picture | threads | calotype | MediaPipe, the same steps | as the published trainer | faces | speed-up (best, median) |\n|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        pictures = make(Path(folder))
        again = [path for path in pictures.values() for _ in range(TIMES)]
        commands = {"calotype": [a.binary, "faces", *again]}
        commands |= {kind: [sys.executable, __file__, "--peer", kind, *again] for kind in ("graph", "trainer")}
        for threads in a.threads:
            turns = {who: [] for who in commands}
            for _ in range(a.turns):
                for who, command in commands.items():
                    turns[who].append(turn(command, threads))
            for i, name in enumerate(pictures):
                times = {who: [ms for found in results for ms in found[i][1]] for who, results in turns.items()}
                best, middle = ({who: of(values) for who, values in times.items()} for of in (min, statistics.median))
                cells = " | ".join(f"{best[who]:.1f}, {middle[who]:.1f}" for who in commands)
                counts = ", ".join(str(results[-1][i][0]) for results in turns.values())
                ratios = ", ".join(f"{of['graph'] / of['calotype']:.2f}x" for of in (best, middle))
                print(f"| {name} | {threads} | {cells} | {counts} | {ratios} |", flush=True)


if __name__ == "__main__":
    main()
