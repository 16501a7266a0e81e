// What happens to pixels outside the network but for the optimizers' steps: colors into the weights' convention, a
// border around an image, weights of pixels. Images are (H, W, 3) float32, RGB in [0, 1]; here they are H W pixels, or
// n = 3 H W numbers.
//
// A thread takes a pixel, or one number of a grid-stride loop. Each is bound by device memory, or by the launch: 3 us
// each on an H100 at 512 px (benchmarks/results/h100_2026-11-26.md). Launched by elementwise/launch.py;
// tests/kernels/cuda/elementwise/test_kernels.py runs every kernel against float64.
#include "common/indexing.cuh"

// out[., k] := image[., channel_k] * scale_k + shift_k
extern "C" __global__ void __launch_bounds__(256) preprocess(const float* __restrict__ image, float* __restrict__ out,
                                                             int64_t pixels,  //
                                                             int channel_0, int channel_1, int channel_2, float scale_0,
                                                             float scale_1, float scale_2,  //
                                                             float shift_0, float shift_1, float shift_2) {
    for (const int64_t i : grid_stride(pixels)) {
        const float* const pixel = image + 3 * i;
        out[3 * i] = pixel[channel_0] * scale_0 + shift_0;
        out[3 * i + 1] = pixel[channel_1] * scale_1 + shift_1;
        out[3 * i + 2] = pixel[channel_2] * scale_2 + shift_2;
    }
}

// out[., channel_k] := gradient[., k] * scale_k
extern "C" __global__ void __launch_bounds__(256) preprocess_gradient(const float* __restrict__ gradient,
                                                                      float* __restrict__ out, int64_t pixels,
                                                                      int channel_0, int channel_1, int channel_2,
                                                                      float scale_0, float scale_1, float scale_2) {
    for (const int64_t i : grid_stride(pixels)) {
        float* const pixel = out + 3 * i;
        pixel[channel_0] = gradient[3 * i] * scale_0;
        pixel[channel_1] = gradient[3 * i + 1] * scale_1;
        pixel[channel_2] = gradient[3 * i + 2] * scale_2;
    }
}

// (H, W, 3) -> (H + 2 border, W + 2 border, 3): beyond the image its nearest pixel.
extern "C" __global__ void __launch_bounds__(256) pad_edge(const float* __restrict__ image, float* __restrict__ out,
                                                           int height, int width, int border) {
    const int row_values = 3 * (width + 2 * border);
    const int64_t elements = int64_t{height + 2 * border} * row_values;
    for (const int64_t i : grid_stride(elements)) {
        const int row = static_cast<int>(i / row_values), element = static_cast<int>(i % row_values);
        const int y = min(max(row - border, 0), height - 1), x = min(max(element / 3 - border, 0), width - 1);
        out[i] = image[(int64_t{y} * width + x) * 3 + element % 3];
    }
}

// Its transpose: a pixel at the edge takes the gradients of its copies, row by row.
extern "C" __global__ void __launch_bounds__(256) pad_edge_gradient(const float* __restrict__ gradient,
                                                                    float* __restrict__ out, int height, int width,
                                                                    int border) {
    const int64_t elements = int64_t{height} * width * 3, row_values = 3 * (int64_t{width} + 2 * border);
    for (const int64_t i : grid_stride(elements)) {
        const int64_t pixel = i / 3;
        const int y = static_cast<int>(pixel / width), x = static_cast<int>(pixel % width), channel = i % 3;
        const int top = y == 0 ? 0 : y + border, bottom = y + border + (y == height - 1 ? border : 0);
        const int left = x == 0 ? 0 : x + border, right = x + border + (x == width - 1 ? border : 0);
        float sum = 0.0f;
        for (int row = top; row <= bottom; ++row)
            for (int column = left; column <= right; ++column) sum += gradient[row * row_values + 3 * column + channel];
        out[i] = sum;
    }
}

// image[p, k] := image[p, k] * weights[p]. n = H W channels.
extern "C" __global__ void __launch_bounds__(256) weigh_pixels(float* __restrict__ image,
                                                               const float* __restrict__ weights, int64_t n,
                                                               int channels) {
    for (const int64_t i : grid_stride(n)) image[i] *= weights[i / channels];
}
