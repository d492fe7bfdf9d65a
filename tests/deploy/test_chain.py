"""A chain of graphs does what its links do, one after the other."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper


def graph(nodes: list[onnx.NodeProto], inputs: list[str], outputs: list[str]) -> onnx.ModelProto:
    ends = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names]
            for names in (inputs, outputs)]  # fmt: skip
    two = helper.make_tensor("two", TensorProto.FLOAT, [], [2.0])
    opset = [helper.make_opsetid("", 20)]
    return helper.make_model(
        helper.make_graph(nodes, "part", *ends, initializer=[two]),
        opset_imports=opset,
        ir_version=8,
    )


@pytest.mark.parametrize("count", [1, 4])
def test_each_link_takes_what_the_last_left_and_a_part_of_its_own(count: int) -> None:
    from caloforge.deploy.chain import chained

    node = helper.make_node
    first = graph(
        [node("Mul", ["start", "two"], ["x"]), node("Identity", ["shares"], ["own#"])],
        ["start", "shares"], ["x", "own#"],
    )  # fmt: skip
    link = graph(
        [node("Mul", ["x", "two"], ["doubled"]), node("Add", ["doubled", "own#"], ["next_x"]),
         node("Mul", ["two", "two"], ["unused"]), node("Identity", ["next_x"], ["left#"])],
        ["x", "own#"], ["next_x", "left#"],
    )  # fmt: skip
    last = graph([node("Concat", ["x", "left#"], ["all"], axis=1)], ["x", "left#"], ["all"])
    joined = chained(first, link, last, count)
    assert not any("unused" in name for part in joined.graph.node for name in part.output)
    assert len(joined.graph.initializer) == 3  # a link's weights once
    start, shares = np.ones((2, 1), np.float32), np.arange(2 * count, dtype=np.float32)
    shares = shares.reshape(2, count)
    session = onnxruntime.InferenceSession(
        joined.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (found,) = session.run(None, {"start": start, "shares": shares})
    x, left = 2 * start, []
    for k in range(count):
        x = 2 * x + shares[:, k : k + 1]
        left.append(x)
    assert np.array_equal(found, np.concatenate([x, *left], axis=1))
