"""Adding windows into the array that they are windows of, as a loop for numba.

NumPy does this with a call for each element of a window, each of which goes through the whole memory.
"""

from xpnet.replay.graph import Operation


def render(operation: Operation) -> str:
    """Return the source of a function of the windows and of the array to write to.

    What is the same for all windows stands in it as numbers, which the compiler unrolls.
    """
    strides, dilations = operation.options["strides"], operation.options["dilations"]
    axes = range(len(strides))
    sizes = operation.inputs[0].shape[1 + len(axes) : -1]
    counts = [f"for p{a} in range(w.shape[{1 + a}]):" for a in axes]
    inside = [f"for k{a} in range({sizes[a]}):" for a in axes]
    place = ", ".join(f"p{a} * {strides[a]} + k{a} * {dilations[a]}" for a in axes)
    element = ", ".join([*(f"p{a}" for a in axes), *(f"k{a}" for a in axes)])
    loops = [*counts, *inside, "for c in range(w.shape[-1]):"]
    lines = [f"{'    ' * depth}{loop}" for depth, loop in enumerate(loops, start=2)]
    lines.append(f"{'    ' * (2 + len(loops))}out[n, {place}, c] += w[n, {element}, c]")
    head = [
        "@njit(error_model='numpy')",
        "def kernel(w, out):",
        "    for n in range(w.shape[0]):",
    ]
    return "\n".join([*head, "        out[n] = 0", *lines, ""])
