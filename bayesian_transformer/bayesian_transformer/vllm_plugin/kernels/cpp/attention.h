// Attention of particle rows over the cache and their own token; the formula is in ../../attention/cpu.py.
#pragma once

#include <vector>

#include "common.h"
#include "describe.h"

// c[ROWS][n] = first ? a b : c + a b, with a[ROWS][k] and b[k][n], n a multiple of LANES.
template <int ROWS>
void multiply_rows(const float* a, int64_t a_stride, const float* b, int64_t b_stride, float* c, int64_t c_stride, int64_t k,
                   int64_t n) {
    for (int64_t column = 0; column < n; column += LANES) {
        Floats sums[ROWS];  // in registers, if all loops over it are unrolled
#pragma GCC unroll 8
        for (int row = 0; row < ROWS; row++) sums[row] = load(c + row * c_stride + column);
        for (int64_t i = 0; i < k; i++) {
            Floats right = load(b + i * b_stride + column);
#pragma GCC unroll 8
            for (int row = 0; row < ROWS; row++) sums[row] += a[row * a_stride + i] * right;
        }
#pragma GCC unroll 8
        for (int row = 0; row < ROWS; row++) store(c + row * c_stride + column, sums[row]);
    }
}

// c[rows][n] += a[rows][k] b[k][n]
inline void multiply_add(const float* a, int64_t a_stride, const float* b, int64_t b_stride, float* c, int64_t c_stride,
                         int64_t rows, int64_t k, int64_t n) {
    for (; rows >= 8; rows -= 8, a += 8 * a_stride, c += 8 * c_stride)
        multiply_rows<8>(a, a_stride, b, b_stride, c, c_stride, k, n);
    if (rows >= 4) {
        multiply_rows<4>(a, a_stride, b, b_stride, c, c_stride, k, n);
        rows -= 4, a += 4 * a_stride, c += 4 * c_stride;
    }
    for (; rows > 0; rows--, a += a_stride, c += c_stride)
        multiply_rows<1>(a, a_stride, b, b_stride, c, c_stride, k, n);
}

struct AttentionShape {
    static constexpr const char* NAME = "AttentionShape";
    int64_t requests, noisy_samples, kv_heads, group, head_size;    // group: query heads per KV head
    int64_t block_size, max_blocks;                                 // of the cache; blocks per request in block_table
    int64_t query_stride, key_stride, value_stride, output_stride;  // from row to row
    int64_t block_stride;                                           // from block to block of the cache
    int64_t key_step, value_step;                                   // see unpack
};
STRUCT(AttentionShape);
MEMBER(AttentionShape, requests);
MEMBER(AttentionShape, noisy_samples);
MEMBER(AttentionShape, kv_heads);
MEMBER(AttentionShape, group);
MEMBER(AttentionShape, head_size);
MEMBER(AttentionShape, block_size);
MEMBER(AttentionShape, max_blocks);
MEMBER(AttentionShape, query_stride);
MEMBER(AttentionShape, key_stride);
MEMBER(AttentionShape, value_stride);
MEMBER(AttentionShape, output_stride);
MEMBER(AttentionShape, block_stride);
MEMBER(AttentionShape, key_step);
MEMBER(AttentionShape, value_step);

// A packed block as floats. `order` says where each number lies, null if in its place; the numbers of a vector lie
// `step` apart (2: AMX keeps pairs together), or anywhere if it is 0.
template <typename T> void unpack(const T* packed, const int64_t* order, int64_t step, float* to, int64_t count) {
    for (int64_t i = 0; i < count; i += LANES) {
        const T* from = packed + (order ? order[i] : i);
        if (!order || step == 1) {
            store(to + i, load(from));
        } else if (step == 2) {
            store(to + i, load_alternate(from));
        } else {
            for (int64_t lane = i; lane < i + LANES; lane++) to[lane] = float(packed[order[lane]]);
        }
    }
}

// One row's scores become weights relative to the new maximum, which is returned; `sum` and `out` are rescaled to it.
inline float weigh(float* scores, int64_t count, int64_t padded, float top, float& total, float* out, int64_t width) {
    for (int64_t i = count; i < padded; i++) scores[i] = -INFINITE;
    Floats best = splat(top);
    for (int64_t i = 0; i < padded; i += LANES) best = larger(load(scores + i), best);
    float new_top = largest(best);
    float factor = exponential(splat(top - new_top))[0];
    Floats sums{};
    for (int64_t i = 0; i < padded; i += LANES) {
        Floats weight = exponential(load(scores + i) - new_top);
        sums += weight;
        store(scores + i, weight);
    }
    total = total * factor + sum(sums);
    if (factor != 1)
        for (int64_t i = 0; i < width; i++) out[i] *= factor;
    return new_top;
}

// scores[count] = soft_cap tanh(scores / soft_cap), count a multiple of LANES.
inline void cap(float* scores, int64_t count, float soft_cap) {
    for (int64_t i = 0; i < count; i += LANES) store(scores + i, hyperbolic_tangent(load(scores + i) / soft_cap) * soft_cap);
}

// All particle rows of one request and KV head. They see the last `window` tokens, their own included; soft_cap is 0 where
// scores stay as they are.
template <typename T>
void attend(const AttentionShape& shape, int64_t request, int64_t head, const T* query, const T* key, const T* value,
            const T* cache, const int32_t* blocks, int64_t length, const int64_t* key_order, const int64_t* value_order,
            float scale, int64_t window, float soft_cap, T* output) {
    const int64_t D = shape.head_size, B = shape.block_size, group = shape.group, rows = shape.noisy_samples * group;
    thread_local std::vector<float> memory;
    memory.resize(2 * rows * D + rows * B + D * B + 2 * rows);
    float *q = memory.data(), *out = q + rows * D, *scores = out + rows * D, *block = scores + rows * B;
    float *top = block + D * B, *total = top + rows;

    for (int64_t row = 0; row < rows; row++) {  // begin with the own token: its weight relative to itself is 1
        int64_t token = row / group * shape.requests + request;
        const T* from = query + token * shape.query_stride + (head * group + row % group) * D;
        const T *own_key = key + token * shape.key_stride + head * D, *own_value = value + token * shape.value_stride + head * D;
        Floats score{};
        for (int64_t i = 0; i < D; i += LANES) {
            Floats part = load(from + i) * scale;
            store(q + row * D + i, part);
            score += part * load(own_key + i);
            store(out + row * D + i, load(own_value + i));
        }
        top[row] = sum(score);
        if (soft_cap != 0) top[row] = hyperbolic_tangent(splat(top[row]) / soft_cap)[0] * soft_cap;
        total[row] = 1;
    }
    const int64_t first = length + 1 > window ? length + 1 - window : 0;  // token that is seen
    for (int64_t start = first / B * B; start < length; start += B) {
        const T* packed = cache + blocks[start / B] * shape.block_stride + head * 2 * B * D;
        const int64_t hidden = start < first ? first - start : 0;  // tokens of the block that lie before it
        int64_t count = length - start < B ? length - start : B, padded = (count + LANES - 1) / LANES * LANES;
        unpack(packed, key_order, shape.key_step, block, D * B);
        for (int64_t row = 0; row < rows; row++) std::memset(scores + row * B, 0, padded * sizeof(float));
        multiply_add(q, D, block, B, scores, B, rows, D, padded);
        if (soft_cap != 0)
            for (int64_t row = 0; row < rows; row++) cap(scores + row * B, padded, soft_cap);
        if (hidden)
            for (int64_t row = 0; row < rows; row++)
                for (int64_t i = 0; i < hidden; i++) scores[row * B + i] = -INFINITE;
        for (int64_t row = 0; row < rows; row++)
            top[row] = weigh(scores + row * B, count, padded, top[row], total[row], out + row * D, D);
        unpack(packed + B * D, value_order, shape.value_step, block, D * B);
        multiply_add(scores + hidden, B, block + hidden * D, D, out, D, rows, count - hidden, D);
    }
    for (int64_t row = 0; row < rows; row++) {
        T* to = output + (row / group * shape.requests + request) * shape.output_stride + (head * group + row % group) * D;
        for (int64_t i = 0; i < D; i += LANES) store(to + i, load(out + row * D + i) / total[row]);
    }
}
