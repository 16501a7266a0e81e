"""Our kernels as functions on arrays of the caller's: statistics of activations, the costs of them, their gradients.

`functions` says what holds for all of them. A style's cost in three lines, its gradient exact:

    g = gram(features)
    cost, gram_error = style_cost(g, target, pixels=H * W)
    gradient = style_gradient(features, gram_error)             # d cost / d features

Weights of pixels are (H, W), float32, with a mean of one; None stands for ones. A cost is an array without dimensions,
float32, of the caller's kind: on a GPU, nothing waits for it.
"""

from typing import Any

from .calls import Call
from .device import MOST_DIRECTIONS, W2_SCRATCH
from .errors import ArrayError
from .functions import IMAGE_CHANNELS, A, _added_to


def gram(features: A, *, weights: A | None = None, out: A | None = None, precision: str | None = None,
         stream: Any = None, device: str | None = None) -> A:  # fmt: skip
    """G[k, m] = 1/(H W) sum_{i,j} weights[i, j] features[i, j, k] features[i, j, m].

    features (H, W, C); precision "tf32" or "3xtf32" has float32 multiplied on tensor cores. Returns (C, C), float32.
    """
    call, values, weighing = _features("gram", features, weights, precision, stream, device)
    height, width, channels = values.shape
    result = call.output("out", out, (channels, channels), call.images)
    with call.running([(height, width, IMAGE_CHANNELS, channels)]) as on:
        on.gram(values, result.memory, weights=weighing)
    return call.result(result)  # type: ignore[no-any-return]


def mean(features: A, *, weights: A | None = None, out: A | None = None, stream: Any = None,
         device: str | None = None) -> A:  # fmt: skip
    """m[k] = 1/(H W) sum_{i,j} weights[i, j] features[i, j, k]; features (H, W, C). Returns (C,), float32."""
    call, values, weighing = _features("mean", features, weights, None, stream, device)
    height, width, channels = values.shape
    result = call.output("out", out, (channels,), call.images)
    with call.running([(height, width, IMAGE_CHANNELS, channels)]) as on:
        on.mean(values, result.memory, weights=weighing)
    return call.result(result)  # type: ignore[no-any-return]


def style_cost(gram: A, target: A, *, pixels: int, out: tuple[A, A] | None = None, stream: Any = None,
               device: str | None = None) -> tuple[A, A]:  # fmt: skip
    """J = 1/(4 C^2) sum (gram - target)^2 of two Grams, and what `style_gradient` makes the gradient of.

    gram and target (C, C), float32; pixels: H W of the features that gram is of. Returns (J, gram_error), the latter
    (C, C): (gram - target) / (C^2 pixels). `out` is such a pair.
    """
    call, channels = _square("style_cost", gram, stream, device)
    first = call.input("gram", gram, (channels, channels), call.images)
    second = call.input("target", target, (channels, channels), call.images)
    given = out or (None, None)
    cost = call.scalar("cost", given[0])
    error = call.output("gram_error", given[1], (channels, channels), call.images)
    scale = 1 / (channels**2 * _positive("style_cost", pixels))
    with call.running() as on:
        on.style_cost(first, second, scale, cost=cost.memory, gram_error=error.memory)
    return call.result(cost), call.result(error)


def moments_cost(gram: A, mean: A, target_gram: A, target_mean: A, *, pixels: int, out: tuple[A, A, A] | None = None,
                 stream: Any = None, device: str | None = None) -> tuple[A, A, A]:  # fmt: skip
    """J = 1/(4 C^2) (sum dS^2 + sum dM^2) with M = mean mean^T and S = gram - M, d the difference from the target's.

    Grams (C, C) and means (C,), float32; pixels: H W of the features. Returns (J, gram_error (C, C), mean_error (C,)):
    `style_gradient` takes both errors. `out` is such a triple.
    """
    call, channels = _square("moments_cost", gram, stream, device)
    matrices = _matrices(call, channels, gram=gram, target_gram=target_gram)
    vectors = _vectors(call, channels, mean=mean, target_mean=target_mean)
    given = out or (None, None, None)
    cost = call.scalar("cost", given[0])
    gram_error = call.output("gram_error", given[1], (channels, channels), call.images)
    mean_error = call.output("mean_error", given[2], (channels,), call.images)
    scale = 1 / (channels**2 * _positive("moments_cost", pixels))
    with call.running() as on:
        on.moments_cost(
            matrices[0], vectors[0], matrices[1], vectors[1], scale,
            cost=cost.memory, gram_error=gram_error.memory, mean_error=mean_error.memory,
        )  # fmt: skip
    return call.result(cost), call.result(gram_error), call.result(mean_error)


def w2_root(gram: A, mean: A, *, ridge: float, out: A | None = None, stream: Any = None,
            device: str | None = None) -> A:  # fmt: skip
    """R = (gram - mean mean^T + ridge I)^(1/2), the root of a covariance, as `w2_cost` takes it of its target.

    gram (C, C) and mean (C,), float32. ridge: 1e-3 of the mean variance is enough for float32, and never less than
    1e-4 of the mean of gram's diagonal. Returns (C, C).
    """
    call, channels = _square("w2_root", gram, stream, device)
    (matrix,) = _matrices(call, channels, gram=gram)
    (vector,) = _vectors(call, channels, mean=mean)
    root = call.output("out", out, (channels, channels), call.images)
    scratch = call.scratch((W2_SCRATCH, channels, channels), call.images)
    with call.running() as on:
        on.w2_root(matrix, vector, ridge, root.memory, scratch=scratch)
    return call.result(root)  # type: ignore[no-any-return]


def w2_cost(gram: A, mean: A, target_root: A, target_mean: A, *, ridge: float, pixels: int,
            out: tuple[A, A, A] | None = None, stream: Any = None,
            device: str | None = None) -> tuple[A, A, A]:  # fmt: skip
    """The squared 2-Wasserstein distance of two normal distributions, divided by C.

        J = 1/C (|mean - target_mean|^2 + tr S + tr R^2 - 2 tr (R S R)^(1/2)),  S = gram - mean mean^T + ridge I

    gram (C, C) and mean (C,); R = target_root (C, C), from `w2_root` with the same ridge, and target_mean (C,); all
    float32. pixels: H W of the features. Returns (J, gram_error (C, C), mean_error (C,)): `style_gradient` takes both.
    `out` is such a triple.
    """
    call, channels = _square("w2_cost", gram, stream, device)
    matrices = _matrices(call, channels, gram=gram, target_root=target_root)
    vectors = _vectors(call, channels, mean=mean, target_mean=target_mean)
    given = out or (None, None, None)
    cost = call.scalar("cost", given[0])
    gram_error = call.output("gram_error", given[1], (channels, channels), call.images)
    mean_error = call.output("mean_error", given[2], (channels,), call.images)
    scratch = call.scratch((W2_SCRATCH, channels, channels), call.images)
    scale = 2 / (channels * _positive("w2_cost", pixels))
    with call.running() as on:
        on.w2_cost(
            matrices[0], vectors[0], matrices[1], vectors[1], ridge, scale,
            cost=cost.memory, gram_error=gram_error.memory, mean_error=mean_error.memory, scratch=scratch,
        )  # fmt: skip
    return call.result(cost), call.result(gram_error), call.result(mean_error)


def style_gradient(features: A, gram_error: A, mean_error: A | None = None, *, weights: A | None = None,
                   out: A | None = None, accumulate: bool = False, precision: str | None = None, stream: Any = None,
                   device: str | None = None) -> A:  # fmt: skip
    """The gradient of a style's cost: dJ/da[i, j] = weights[i, j] (a[i, j] gram_error + mean_error).

    features a (H, W, C); gram_error (C, C), symmetric, and mean_error (C,), None for zeros, are float32, from
    `style_cost`, `moments_cost` or `w2_cost`; weights as they were for `gram`; precision as for `gram`. In float16
    what is below 6e-8 is lost: scale the errors by a power of two. Returns (H, W, C), of features' dtype.
    """
    call, values, weighing = _features("style_gradient", features, weights, precision, stream, device)
    height, width, channels = values.shape
    error = call.input("gram_error", gram_error, (channels, channels), call.images)
    of_mean = call.optional("mean_error", mean_error, (channels,), call.images)
    result = call.output("out", _added_to(out, accumulate, "style_gradient"), values.shape, call.activations)
    with call.running([(height, width, IMAGE_CHANNELS, channels)]) as on:
        on.style_gradient(
            values, error, out=result.memory, accumulate=accumulate, mean_error=of_mean, weights=weighing
        )  # fmt: skip
    return call.result(result)  # type: ignore[no-any-return]


def random_directions(counter: A, shape: tuple[int, int], *, seed: int = 0, out: A | None = None, stream: Any = None,
                      device: str | None = None) -> A:  # fmt: skip
    """Unit vectors at random, shape (K, C), float32: a function of seed and counter alone, with the same bytes on every
    device.

    counter (1,), int32, is read where it lies, so that a captured CUDA graph draws others once it has changed.
    seed: 0 to 2^64 - 1.
    """
    call = Call("random_directions", counter, precision="fp32", stream=stream, device=device)
    turn = call.input("counter", counter, (1,), "int32")
    if not 0 <= seed < 2**64:
        raise ArrayError(f"random_directions: seed is {seed}; it must be 0 to 2^64 - 1")
    if len(shape) != 2 or min(shape) < 1:
        raise ArrayError(f"random_directions: shape is {shape}; it must be (directions, channels)")
    result = call.output("out", out, shape, call.images)
    with call.running() as on:
        on.random_directions(seed, turn, result.memory)
    return call.result(result)  # type: ignore[no-any-return]


def project(features: A, directions: A, *, out: A | None = None, stream: Any = None, device: str | None = None) -> A:
    """P[k, p] = sum_c directions[k, c] features[p, c] for the pixels p in reading order.

    features (H, W, C); directions (K, C), float32. Returns (K, H W), float32.
    """
    call, values, _ = _features("project", features, None, None, stream, device)
    height, width, channels = values.shape
    along = call.input("directions", directions, ("K", channels), call.images)
    result = call.output("out", out, (along.shape[0], height * width), call.images)
    with call.running() as on:
        on.project(values, along, result.memory)
    return call.result(result)  # type: ignore[no-any-return]


def sort_rows(values: A, *, out: tuple[A, A] | None = None, stream: Any = None,
              device: str | None = None) -> tuple[A, A]:  # fmt: skip
    """Each row of values (K, N), float32, rising and stable, NaN last; -0 counts as 0, and becomes it.

    Returns (sorted (K, N), order (K, N)), the latter int32: the place in its row that each value came from. `out` is
    such a pair. Beside them it takes as much memory again.
    """
    call = Call("sort_rows", values, stream=stream, device=device)
    given = call.input("values", values, ("K", "N"), call.images)
    first, second = out or (None, None)
    rows = call.output("sorted", first, given.shape, call.images)
    order = call.output("order", second, given.shape, "int32")
    scratch = call.scratch((call.device.sort_scratch_bytes(*given.shape),), "uint8")
    with call.running() as on:
        on.copy(given, rows.memory)
        on.sort_rows(rows.memory, order.memory, scratch=scratch)
    return call.result(rows), call.result(order)


def sliced_cost(values: A, order: A, target: A, *, weights: A | None = None, out: tuple[A, A] | None = None,
                stream: Any = None, device: str | None = None) -> tuple[A, A]:  # fmt: skip
    """The sliced Wasserstein distance (Heitz et al. 2021), squared: of sorted projections to a target's.

        J = 1/(N K) sum_{k,i} w (values[k, i] - T_k(u))^2

    w is the weight of pixel order[k, i], u in (0, 1) its rank: (w / 2 + the sum of weights before it) / N; T_k is the
    row of the target read at that rank, straight between its values, of whose M the j-th has the rank (j + 1/2) / M.

    values (K, N), float32, and order (K, N), int32, from `sort_rows` of what `project` made; target (K, M), float32,
    sorted likewise, from the same directions; K is 256 at most. Returns (J, residual (K, N)): `sliced_gradient` takes
    the residual. `out` is such a pair.
    """
    call = Call("sliced_cost", values, stream=stream, device=device)
    rows = call.input("values", values, ("K", "N"), call.images)
    count, length = rows.shape
    if count > MOST_DIRECTIONS:
        raise ArrayError(f"sliced_cost: {count} directions; it must be {MOST_DIRECTIONS} at most")
    places = call.input("order", order, (count, length), "int32")
    wanted = call.input("target", target, (count, "M"), call.images)
    weighing = call.optional("weights", weights, ("H", "W"), call.images)
    if weighing is not None and weighing.size != length:
        raise ArrayError(f"sliced_cost: weights of {weighing.size} pixels for {length}")
    first, second = out or (None, None)
    cost = call.scalar("cost", first)
    residual = call.output("residual", second, (count, length), call.images)
    with call.running() as on:
        on.sliced_cost(rows, places, wanted, 2 / (count * length), cost=cost.memory, residual=residual.memory,
                       weights=weighing)  # fmt: skip
    return call.result(cost), call.result(residual)


def sliced_gradient(features: A, residual: A, directions: A, *, out: A | None = None, accumulate: bool = False,
                    stream: Any = None, device: str | None = None) -> A:  # fmt: skip
    """The gradient of `sliced_cost`, with the order and the directions held fixed.

        dJ/da[p, c] = sum_k residual[k, p] directions[k, c]

    features a (H, W, C), of which shape and dtype count; residual (K, H W) and directions (K, C), float32. In float16
    what is below 6e-8 is lost: scale the residual by a power of two. Returns (H, W, C), of features' dtype.
    """
    call, values, _ = _features("sliced_gradient", features, None, None, stream, device)
    height, width, channels = values.shape
    away = call.input("residual", residual, ("K", height * width), call.images)
    along = call.input("directions", directions, (away.shape[0], channels), call.images)
    result = call.output("out", _added_to(out, accumulate, "sliced_gradient"), values.shape, call.activations)
    with call.running() as on:
        on.sliced_gradient(away, along, out=result.memory, accumulate=accumulate)
    return call.result(result)  # type: ignore[no-any-return]


def normalize_features(features: A, mean: A, *, out: A | None = None, stream: Any = None,
                       device: str | None = None) -> A:  # fmt: skip
    """u[i, j] = (features[i, j] - mean) / |features[i, j] - mean|, the direction from the mean; 0 where there is none.

    features (H, W, C); mean (C,), float32. Returns (H, W, C), of features' dtype: as (H W, C) they are the candidates
    of `nearest_neighbors`.
    """
    call, values, center = _centered("normalize_features", features, mean, None, stream, device)
    result = call.output("out", out, values.shape, call.activations)
    with call.running() as on:
        on.normalize_features(values, center, result.memory)
    return call.result(result)  # type: ignore[no-any-return]


def nearest_neighbors(features: A, mean: A, candidates: A, *, out: A | None = None, precision: str | None = None,
                      stream: Any = None, device: str | None = None) -> A:  # fmt: skip
    """n[i, j] = argmax_k <features[i, j] - mean, candidates[k]>, of equals the lowest k: the nearest by cosine.

    features (H, W, C); mean (C,), float32; candidates (M, C), of features' dtype, finite and of unit length, from
    `normalize_features`. precision "tf32" has float32 multiplied on tensor cores; of candidates that are equally near
    but for rounding any may be found, the same one every time. Returns (H, W), int32.
    """
    call, values, center = _centered("nearest_neighbors", features, mean, precision, stream, device)
    height, width, channels = values.shape
    among = call.input("candidates", candidates, ("M", channels), call.activations)
    result = call.output("out", out, (height, width), "int32")
    with call.running(searches=[(height, width, channels, among.shape[0])]) as on:
        on.nearest_neighbors(values, center, among, result.memory)
    return call.result(result)  # type: ignore[no-any-return]


def neighbors_cost(features: A, mean: A, candidates: A, matches: A, *, weights: A | None = None, out: A | None = None,
                   stream: Any = None, device: str | None = None) -> A:  # fmt: skip
    """The mean cosine distance to what was matched (after Kolkin et al. 2022).

        J = 1/(H W) sum_{i,j} weights[i, j] (1 - <u[i, j], candidates[matches[i, j]]>)

    features (H, W, C), mean and candidates as for `nearest_neighbors`, which makes matches (H, W), int32; u are what
    `normalize_features` makes of the features.
    """
    call, values, center, among, matched, weighing = _matched(
        "neighbors_cost", features, mean, candidates, matches, weights, stream, device
    )
    cost = call.scalar("out", out)
    with call.running() as on:
        on.neighbors_cost(values, center, among, matched, 1 / matched.size, cost=cost.memory, weights=weighing)
    return call.result(cost)  # type: ignore[no-any-return]


def neighbors_gradient(features: A, mean: A, candidates: A, matches: A, *, scale: float = 1.0, weights: A | None = None,
                       out: A | None = None, accumulate: bool = False, stream: Any = None,
                       device: str | None = None) -> A:  # fmt: skip
    """The gradient of `neighbors_cost`, times scale, with the mean and the matches held fixed.

        dJ/da[i, j] = weights[i, j] / (H W) (<u, s> u - s) / |a - mean|,  s = candidates[matches[i, j]], u at [i, j]

    In float16 what is below 6e-8 is lost, which is what scale is for. Returns (H, W, C), of features' dtype.
    """
    call, values, center, among, matched, weighing = _matched(
        "neighbors_gradient", features, mean, candidates, matches, weights, stream, device
    )
    result = call.output("out", _added_to(out, accumulate, "neighbors_gradient"), values.shape, call.activations)
    with call.running() as on:
        on.neighbors_gradient(values, center, among, matched, scale / matched.size, out=result.memory,
                              accumulate=accumulate, weights=weighing)  # fmt: skip
    return call.result(result)  # type: ignore[no-any-return]


def content_cost(features: A, target: A, *, weights: A | None = None, out: A | None = None, stream: Any = None,
                 device: str | None = None) -> A:  # fmt: skip
    """J = 1/2 sum_{i,j} weights[i, j] |features[i, j] - target[i, j]|^2; both (H, W, C), of one dtype."""
    call, values, weighing = _features("content_cost", features, weights, None, stream, device)
    wanted = call.input("target", target, values.shape, call.activations)
    cost = call.scalar("out", out)
    with call.running() as on:
        on.content_cost(values, wanted, 1.0, cost=cost.memory, weights=weighing)
    return call.result(cost)  # type: ignore[no-any-return]


def content_gradient(features: A, target: A, *, weights: A | None = None, out: A | None = None,
                     accumulate: bool = False, stream: Any = None, device: str | None = None) -> A:  # fmt: skip
    """The gradient of `content_cost`: weights[i, j] (features[i, j] - target[i, j]), (H, W, C), of features' dtype."""
    call, values, weighing = _features("content_gradient", features, weights, None, stream, device)
    wanted = call.input("target", target, values.shape, call.activations)
    result = call.output("out", _added_to(out, accumulate, "content_gradient"), values.shape, call.activations)
    with call.running() as on:
        on.content_gradient(values, wanted, 1.0, out=result.memory, accumulate=accumulate, weights=weighing)
    return call.result(result)  # type: ignore[no-any-return]


def tv_cost(image: A, *, out: tuple[A, A] | None = None, stream: Any = None,
            device: str | None = None) -> tuple[A, A]:  # fmt: skip
    """J = mean (x[i, j+1] - x[i, j])^2 + mean (x[i+1, j] - x[i, j])^2 of an image (H, W, 3), float32, and its gradient.

    Returns (J, gradient (H, W, 3)). `out` is such a pair.
    """
    call = Call("tv_cost", image, stream=stream, device=device)
    pixels = call.input("image", image, ("H", "W", IMAGE_CHANNELS), call.images)
    given = out or (None, None)
    cost = call.scalar("cost", given[0])
    gradient = call.output("gradient", given[1], pixels.shape, call.images)
    with call.running() as on:
        on.zero(gradient.memory)
        on.tv_cost(pixels, 1.0, cost=cost.memory, gradient=gradient.memory)
    return call.result(cost), call.result(gradient)


def _features(operation: str, features: Any, weights: Any | None, precision: str | None, stream: Any,
              device: str | None) -> tuple[Call, Any, Any | None]:  # fmt: skip
    call = Call(operation, features, precision=precision, stream=stream, device=device)
    values = call.input("features", features, ("H", "W", "C"), call.activations)
    return call, values, call.optional("weights", weights, values.shape[:2], call.images)


def _centered(operation: str, features: Any, mean: Any, precision: str | None, stream: Any,
              device: str | None) -> tuple[Call, Any, Any]:  # fmt: skip
    call, values, _ = _features(operation, features, None, precision, stream, device)
    return call, values, call.input("mean", mean, values.shape[2:], call.images)


def _matched(operation: str, features: Any, mean: Any, candidates: Any, matches: Any, weights: Any | None, stream: Any,
             device: str | None) -> tuple[Call, Any, Any, Any, Any, Any | None]:  # fmt: skip
    call, values, center = _centered(operation, features, mean, None, stream, device)
    among = call.input("candidates", candidates, ("M", values.shape[2]), call.activations)
    matched = call.input("matches", matches, values.shape[:2], "int32")
    return call, values, center, among, matched, call.optional("weights", weights, values.shape[:2], call.images)


def _square(operation: str, gram: Any, stream: Any, device: str | None) -> tuple[Call, int]:
    call = Call(operation, gram, stream=stream, device=device)
    shape = tuple(gram.shape)
    if len(shape) != 2 or shape[0] != shape[1] or not shape[0]:
        raise ArrayError(f"{operation}: gram has shape {shape}; it must be (C, C)")
    return call, int(shape[0])


def _matrices(call: Call, channels: int, **arrays: Any) -> list[Any]:
    return [call.input(name, array, (channels, channels), call.images) for name, array in arrays.items()]


def _vectors(call: Call, channels: int, **arrays: Any) -> list[Any]:
    return [call.input(name, array, (channels,), call.images) for name, array in arrays.items()]


def _positive(operation: str, pixels: int) -> int:
    if pixels < 1:
        raise ArrayError(f"{operation}: pixels is {pixels}; it must be H W of the features")
    return pixels
