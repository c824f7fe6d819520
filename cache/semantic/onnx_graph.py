"""Write a BERT encoder as an ONNX graph, with weights of 8 bits or as they are.

Straight from the checkpoint's tensors: neither torch nor an exporter is needed.
The graph takes `tokens` and `mask` (int64 and float32, batch x length) and gives
the mean of the last hidden states (float32, batch x width).

Weights have one scale per output column, activations one per token: a scale for
all tokens together, as is common, doubles the distance to the unquantized model
and makes a vector depend on its neighbours in the batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

Array = NDArray[Any]
_OPSET = 20
_IR_VERSION = 10


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes of a BERT encoder."""

    layers: int
    heads: int
    width: int
    epsilon: float

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Shape:
        """Read `config.json` of a checkpoint. Raises ValueError for another architecture."""
        kind = config.get("model_type"), config.get("hidden_act")
        positions = config.get("position_embedding_type", "absolute")
        if kind != ("bert", "gelu") or positions != "absolute":
            raise ValueError(
                f"expected a BERT encoder with gelu and absolute positions, found {kind}, "
                f"{positions}; leave the runtime to sentence-transformers"
            )
        return cls(
            layers=config["num_hidden_layers"],
            heads=config["num_attention_heads"],
            width=config["hidden_size"],
            epsilon=config.get("layer_norm_eps", 1e-12),
        )


def bert_graph(tensors: Mapping[str, Array], shape: Shape, *, quantized: bool) -> ModelProto:
    """Return the encoder of a checkpoint. Raises KeyError for a tensor that is not there."""
    return _Writer(tensors, shape, quantized).model()


class _Writer:
    """Collects nodes and constants; every method returns the name of what it computes."""

    def __init__(self, tensors: Mapping[str, Array], shape: Shape, quantized: bool) -> None:
        self._tensors = tensors
        self._shape = shape
        self._quantized = quantized
        self._nodes: list[NodeProto] = []
        self._constants: dict[str, TensorProto] = {}

    def model(self) -> ModelProto:
        hidden = self._embedded()
        bias = self._attention_bias()
        for number in range(self._shape.layers):
            hidden = self._layer(f"encoder.layer.{number}.", hidden, bias)
        self._node("Identity", self._mean(hidden), to="vectors")
        inputs = [
            helper.make_tensor_value_info("tokens", TensorProto.INT64, ["batch", "length"]),
            helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["batch", "length"]),
        ]
        output = helper.make_tensor_value_info(
            "vectors", TensorProto.FLOAT, ["batch", self._shape.width]
        )
        constants = list(self._constants.values())
        graph = helper.make_graph(self._nodes, "bert", inputs, [output], constants)
        opsets = [helper.make_opsetid("", _OPSET)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION)

    def _embedded(self) -> str:
        words = self._looked_up("embeddings.word_embeddings.weight", "tokens")
        length = self._node("Shape", "tokens", start=1, end=2)
        places = self._tensors["embeddings.position_embeddings.weight"]
        places = places + self._tensors["embeddings.token_type_embeddings.weight"][0]
        rows = self._node(
            "Slice",
            self._constant("positions", places.astype(np.float32)),
            self._integers("zero", [0]),
            length,
            self._integers("zero", [0]),
        )
        return self._normed("embeddings.LayerNorm.", self._node("Add", words, rows))

    def _looked_up(self, name: str, tokens: str) -> str:
        table = self._tensors[name]
        if not self._quantized:
            return self._node("Gather", self._constant(name, table), tokens)
        scale = np.abs(table).max(axis=1, keepdims=True) / 127 + 1e-12
        small = self._constant(name, np.round(table / scale).astype(np.int8))
        scales = self._constant(name + ".scale", scale.astype(np.float32))
        found = self._node("Cast", self._node("Gather", small, tokens), to_type=TensorProto.FLOAT)
        return self._node("Mul", found, self._node("Gather", scales, tokens))

    def _attention_bias(self) -> str:
        """Return 0 where there is a token and a very negative number where there is padding."""
        absent = self._node("Sub", self._floats("one", [1.0]), "mask")
        low = self._node("Mul", absent, self._floats("low", [-1e9]))
        return self._node("Unsqueeze", low, self._integers("axes12", [1, 2]))

    def _layer(self, name: str, hidden: str, bias: str) -> str:
        heads = self._attended(name + "attention.self.", hidden, bias)
        told = self._linear(name + "attention.output.dense", heads)
        hidden = self._normed(name + "attention.output.LayerNorm.", self._node("Add", told, hidden))
        wide = self._node("Gelu", self._linear(name + "intermediate.dense", hidden))
        narrow = self._linear(name + "output.dense", wide)
        return self._normed(name + "output.LayerNorm.", self._node("Add", narrow, hidden))

    def _attended(self, name: str, hidden: str, bias: str) -> str:
        shape = self._shape
        size = shape.width // shape.heads
        split = self._integers("split", [0, 0, 3, shape.heads, size])
        merged = self._integers("merged", [0, 0, shape.width])
        each = [self._tensors[f"{name}{part}.weight"] for part in ("query", "key", "value")]
        biases = [self._tensors[f"{name}{part}.bias"] for part in ("query", "key", "value")]
        all_three = self._product(
            name + "qkv", np.concatenate(each), np.concatenate(biases), hidden
        )
        parts = self._node("Reshape", all_three, split)
        turned = self._node("Transpose", parts, perm=[2, 0, 3, 1, 4])
        query, key, value = (
            self._node("Gather", turned, self._scalar(index), axis=0) for index in range(3)
        )
        across = self._node("Transpose", key, perm=[0, 1, 3, 2])
        scores = self._node("MatMul", query, across)
        scaled = self._node("Mul", scores, self._floats("root", [size**-0.5]))
        weights = self._node("Softmax", self._node("Add", scaled, bias), axis=-1)
        mixed = self._node("Transpose", self._node("MatMul", weights, value), perm=[0, 2, 1, 3])
        return self._node("Reshape", mixed, merged)

    def _linear(self, name: str, given: str) -> str:
        weight, bias = self._tensors[name + ".weight"], self._tensors[name + ".bias"]
        return self._product(name, weight, bias, given)

    def _product(self, name: str, weight: Array, bias: Array, given: str) -> str:
        """Return `given @ weight.T + bias`."""
        offset = self._constant(name + ".bias", bias.astype(np.float32))
        if not self._quantized:
            matrix = self._constant(name, np.ascontiguousarray(weight.T))
            return self._node("Add", self._node("MatMul", given, matrix), offset)
        scale = np.abs(weight).max(axis=1) / 127 + 1e-12
        matrix = self._constant(name, np.round(weight / scale[:, None]).astype(np.int8).T)
        scales = self._constant(name + ".scale", (scale / 127).astype(np.float32))
        small, largest = self._rounded(given)
        summed = self._node("MatMulInteger", small, matrix, self._middle())
        scaled = self._node("Mul", self._node("Cast", summed, to_type=TensorProto.FLOAT), largest)
        return self._node("Add", self._node("Mul", scaled, scales), offset)

    def _rounded(self, given: str) -> tuple[str, str]:
        """Return each row as 127ths of its largest value, with 128 for zero, and that value."""
        last = self._integers("axis2", [2])
        largest = self._node("ReduceMax", self._node("Abs", given), last, keepdims=1)
        share = self._node("Mul", self._node("Div", given, largest), self._floats("127", [127.0]))
        # The cast cuts off what follows the point; the half makes that rounding.
        moved = self._node("Add", share, self._floats("128.5", [128.5]))
        return self._node("Cast", moved, to_type=TensorProto.UINT8), largest

    def _middle(self) -> str:
        return self._constant("middle", np.array(128, np.uint8))

    def _normed(self, name: str, given: str) -> str:
        weight = self._constant(name + "weight", self._tensors[name + "weight"])
        bias = self._constant(name + "bias", self._tensors[name + "bias"])
        epsilon = self._shape.epsilon
        return self._node("LayerNormalization", given, weight, bias, axis=-1, epsilon=epsilon)

    def _mean(self, hidden: str) -> str:
        last = self._integers("axis2", [2])
        along = self._integers("axis1", [1])
        present = self._node("Unsqueeze", "mask", last)
        total = self._node("ReduceSum", self._node("Mul", hidden, present), along, keepdims=0)
        return self._node("Div", total, self._node("ReduceSum", present, along, keepdims=0))

    def _node(self, kind: str, *given: str, to: str | None = None, **options: Any) -> str:
        if "to_type" in options:
            options["to"] = options.pop("to_type")
        made = to or f"{kind}{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, list(given), [made], **options))
        return made

    def _constant(self, name: str, value: Array) -> str:
        if name not in self._constants:
            self._constants[name] = numpy_helper.from_array(np.asarray(value, order="C"), name)
        return name

    def _integers(self, name: str, values: list[int]) -> str:
        return self._constant(name, np.array(values, np.int64))

    def _floats(self, name: str, values: list[float]) -> str:
        return self._constant(name, np.array(values, np.float32))

    def _scalar(self, value: int) -> str:
        return self._constant(f"scalar{value}", np.array(value, np.int64))
