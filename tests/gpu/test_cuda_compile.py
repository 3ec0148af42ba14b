# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""torch.compile and torch's own checks of the ops, on the GPU."""

import pytest
from gpu import gpu_by_default  # noqa: F401
from package.test_compile import (  # noqa: F401
    fresh_compiler,
    test_bad_values_are_nan_where_python_may_not_look,
    test_compiled_backward_twice,
    test_dynamic_shapes_are_compiled_once,
    test_fullgraph,
    test_inductor_with_neighbours_in_the_graph,
    test_module_compiles,
    test_opcheck,
    test_tensors_without_data,
)

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.usefixtures("gpu_by_default"),
    # Compilers warn of much that is not this project's, as of tensor cores that are not used.
    pytest.mark.filterwarnings("default"),
]
