#!/usr/bin/env python3
"""Writes crates/models/src/faces/mediapipe.safetensors: MediaPipe's face detector (full range) and face landmarks, from its package.

    python3.11 -m venv venv && venv/bin/pip install mediapipe==0.10.21 tflite==2.18.0 ai-edge-litert==2.3.0
    venv/bin/python tools/faces.py

The package has them as .tflite, whose constants are half floats, some of them stored sparse: TFLite's interpreter makes them dense. The file's
tensors are `detector.<n>` and `landmarks.<n>`, f16, in the shapes of TFLite: a convolution's kernel is (O, ky, kx, I), a depthwise one's (ky, kx, C).
Its metadata have `detector` and `landmarks`: JSON, {"input": slot, "outputs": [slot, …], "ops": […]}. An op reads slots and writes one, (H, W, C);
a slot is used again when nothing reads it any more. Padding is said in pixels, above and on the left, whatever the .tflite has (PAD before an op, or SAME).
"""

import json
import pathlib

import ai_edge_litert.interpreter as litert
import mediapipe
import numpy as np
import tflite

MODULES = pathlib.Path(mediapipe.__file__).parent / "modules"
OUT = pathlib.Path(__file__).resolve().parent.parent / "crates/models/src/faces/mediapipe.safetensors"
NETWORKS = {
    "detector": "face_detection/face_detection_full_range_sparse.tflite",
    "landmarks": "face_landmark/face_landmark.tflite",
}
NAMES = {code: name for name, code in vars(tflite.BuiltinOperator).items() if isinstance(code, int)}
OPTIONS = {
    "CONV_2D": tflite.Conv2DOptions,
    "DEPTHWISE_CONV_2D": tflite.DepthwiseConv2DOptions,
    "ADD": tflite.AddOptions,
    "MAX_POOL_2D": tflite.Pool2DOptions,
    "RESIZE_BILINEAR": tflite.ResizeBilinearOptions,
    "DEPTH_TO_SPACE": tflite.DepthToSpaceOptions,
}


class Converter:
    def __init__(self, network, path):
        self.network = network
        self.model = tflite.Model.GetRootAsModel(path.read_bytes(), 0)
        self.graph = self.model.Subgraphs(0)
        # Without the delegate that packs constants, so that every tensor can be read.
        resolver = litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        self.run = litert.Interpreter(str(path), experimental_op_resolver_type=resolver, experimental_preserve_all_tensors=True)
        self.run.allocate_tensors()
        self.run.invoke()
        self.tensors = {}
        self.padding = {}  # of a tensor that PAD wrote: the tensor that it read, and the pixels above and on the left
        self.ops = []
        for i in range(self.graph.OperatorsLength()):
            self.convert(self.graph.Operators(i))

    def shape(self, tensor):
        return self.graph.Tensors(tensor).ShapeAsNumpy().tolist()

    def constant(self, tensor, shape=None):
        """The name of a constant in the file."""
        name = f"{self.network}.{len(self.tensors)}"
        values = self.run.get_tensor(tensor).astype(np.float32)
        half = values.astype(np.float16)
        assert (half == values).all(), f"{name}: not half floats"
        self.tensors[name] = np.ascontiguousarray(half.reshape(shape or values.shape))
        return name

    def window(self, x, out, kernel, options):
        """The source of an op with a window, its stride and its padding above and on the left."""
        stride = options.StrideH()
        assert options.StrideW() == stride
        source, pad = self.padding.get(x, (x, None))
        (height, width), (ho, wo) = self.shape(x)[1:3], self.shape(out)[1:3]
        if options.Padding() == tflite.Padding.SAME:
            assert pad is None
            total = [max((o - 1) * stride + k - size, 0) for o, k, size in zip((ho, wo), kernel, (height, width))]
            pad = [t // 2 for t in total]
        return {"input": source, "stride": stride, "pad": pad or [0, 0], "size": [ho, wo]}

    def convert(self, op):
        name = NAMES[self.model.OperatorCodes(op.OpcodeIndex()).BuiltinCode()]
        if name in ("DENSIFY", "DEQUANTIZE"):
            return  # of constants, which the interpreter has computed
        (x, *more), (out,) = op.InputsAsNumpy().tolist(), op.OutputsAsNumpy().tolist()
        options = None
        if name in OPTIONS:
            table = op.BuiltinOptions()
            options = OPTIONS[name]()
            options.Init(table.Bytes, table.Pos)
        relu = False
        if name in ("CONV_2D", "DEPTHWISE_CONV_2D", "ADD", "MAX_POOL_2D"):
            assert options.FusedActivationFunction() in (tflite.ActivationFunctionType.NONE, tflite.ActivationFunctionType.RELU)
            relu = options.FusedActivationFunction() == tflite.ActivationFunctionType.RELU
        if name == "PAD":
            amounts = self.run.get_tensor(more[0]).tolist()
            if amounts[3] == [0, 0]:
                assert x not in self.padding and amounts[0] == [0, 0]
                self.padding[out] = (x, [amounts[1][0], amounts[2][0]])
                return
            assert amounts[:3] == [[0, 0]] * 3 and amounts[3][0] == 0
            fields = {"input": x, "channels": amounts[3][1]}
        elif name == "CONV_2D":
            kernel = self.shape(more[0])[1:3]
            assert options.DilationHFactor() == options.DilationWFactor() == 1
            weights = {"weight": self.constant(more[0]), "bias": self.constant(more[1])}
            fields = self.window(x, out, kernel, options) | weights | {"relu": relu}
        elif name == "DEPTHWISE_CONV_2D":
            _, ky, kx, channels = self.shape(more[0])
            assert options.DepthMultiplier() == options.DilationHFactor() == 1 and not relu
            weights = {"weight": self.constant(more[0], (ky, kx, channels)), "bias": self.constant(more[1])}
            fields = self.window(x, out, (ky, kx), options) | weights
        elif name == "MAX_POOL_2D":
            kernel = (options.FilterHeight(), options.FilterWidth())
            fields = self.window(x, out, kernel, options)
            assert kernel == (2, 2) and fields["stride"] == 2 and fields["pad"] == [0, 0] and not relu
            fields = {"input": x}
        elif name == "ADD":
            assert self.shape(x) == self.shape(more[0])
            fields = {"input": x, "other": more[0], "relu": relu}
        elif name == "PRELU":
            fields = {"input": x, "slope": self.constant(more[0], (-1,))}
        elif name == "RESIZE_BILINEAR":
            assert options.HalfPixelCenters() and not options.AlignCorners()
            assert [2 * n for n in self.shape(x)[1:3]] == self.shape(out)[1:3]
            fields = {"input": x}
        elif name == "DEPTH_TO_SPACE":
            assert options.BlockSize() == 2
            fields = {"input": x}
        elif name == "RESHAPE":
            fields = {"input": x, "shape": self.shape(out)[1:]}
        else:
            raise ValueError(name)
        assert fields["input"] not in self.padding
        self.ops.append({"op": name.lower(), **fields, "output": out})

    def described(self):
        """The ops with slots in the place of TFLite's tensors."""
        (start,), outputs = self.graph.InputsAsNumpy().tolist(), self.graph.OutputsAsNumpy().tolist()
        last = {tensor: len(self.ops) for tensor in outputs}
        for i, op in enumerate(self.ops):
            for tensor in (op["input"], op.get("other")):
                last[tensor] = max(i, last.get(tensor, 0))
        slots, free, count = {start: 0}, [], 1
        for i, op in enumerate(self.ops):
            read = {op["input"], op.get("other")} - {None}
            out = op["output"]
            for field in {"input", "other"} & op.keys():
                op[field] = slots[op[field]]
            if not free:
                free.append(count)
                count += 1
            slots[out] = op["output"] = free.pop()
            free += [slots[tensor] for tensor in read if last[tensor] == i]
        return {"input": 0, "outputs": [slots[tensor] for tensor in outputs], "ops": self.ops}


def write(tensors, metadata):
    """The safetensors file. (The package of that name writes metadata in another order each time.)"""
    header, at = {"__metadata__": metadata}, 0
    for name, tensor in tensors.items():
        header[name] = {"dtype": "F16", "shape": tensor.shape, "data_offsets": [at, at + tensor.nbytes]}
        at += tensor.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    OUT.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(tensor.tobytes() for tensor in tensors.values()))


def main():
    tensors, metadata = {}, {"source": "mediapipe 0.10.21, Apache-2.0", "format": "tflite"}
    for network, path in NETWORKS.items():
        converted = Converter(network, MODULES / path)
        tensors |= converted.tensors
        metadata[network] = json.dumps(converted.described(), separators=(",", ":"))
        print(network, len(converted.ops), "ops,", sum(t.size for t in converted.tensors.values()), "values")
    write(tensors, metadata)
    print(OUT, OUT.stat().st_size, "bytes")


main()
