// The noise of ../../../noise.py, drawn and added.
#pragma once

#include "common.h"
#include "describe.h"

constexpr int64_t PROJECTIONS = 3;  // q, k and v: at most so many are noisy
CONSTANT(PROJECTIONS);

struct Normals {
    float z[4];
};

// Philox4x32-10 and Box-Muller: the four normals of one counter.
inline Normals draw(int64_t seed, int64_t position, uint32_t site, uint32_t sample, uint32_t block) {
    uint32_t c0 = block, c1 = uint32_t(position), c2 = site, c3 = sample;
    uint32_t k0 = uint32_t(seed), k1 = uint32_t(uint64_t(seed) >> 32);
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = uint64_t(c0) * 0xD2511F53u, p1 = uint64_t(c2) * 0xCD9E8D57u;
        c0 = uint32_t(p1 >> 32) ^ c1 ^ k0, c1 = uint32_t(p1);
        c2 = uint32_t(p0 >> 32) ^ c3 ^ k1, c3 = uint32_t(p0);
        k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
    }
    auto radius = [](uint32_t word) { return std::sqrt(-2.0f * std::log(float((word >> 8) + 1) * 0x1p-24f)); };
    auto angle = [](uint32_t word) { return float(word >> 8) * float(2.0 * M_PI * 0x1p-24); };
    float r0 = radius(c0), a0 = angle(c1), r1 = radius(c2), a1 = angle(c3);
    return {{r0 * std::cos(a0), r0 * std::sin(a0), r1 * std::cos(a1), r1 * std::sin(a1)}};
}

struct NoiseShape {
    static constexpr const char* NAME = "NoiseShape";
    int64_t requests, noisy_samples, hidden, width;  // width: of a row of the fused q, k, v output
    int64_t x_stride, qkv_stride;                    // from row to row
    int64_t projections;                             // how many are noisy
    int64_t begins[PROJECTIONS];                     // where each begins in a row
    int64_t sizes[PROJECTIONS];                      // its width
    int64_t starts[PROJECTIONS];                     // noise index of its first output
};
STRUCT(NoiseShape);
MEMBER(NoiseShape, requests);
MEMBER(NoiseShape, noisy_samples);
MEMBER(NoiseShape, hidden);
MEMBER(NoiseShape, width);
MEMBER(NoiseShape, x_stride);
MEMBER(NoiseShape, qkv_stride);
MEMBER(NoiseShape, projections);
MEMBER(NoiseShape, begins);
MEMBER(NoiseShape, sizes);
MEMBER(NoiseShape, starts);

// qkv row += sigma * ||x|| * z basis, in the noisy columns; z [projections * rank], basis [projections * rank, width].
template <typename T>
void add_right(const NoiseShape& shape, const T* x, const T* basis, const float* z, int64_t rank, float sigma, T* qkv) {
    Floats squares{};
    int64_t i = 0;
    for (; i + LANES <= shape.hidden; i += LANES) squares += load(x + i) * load(x + i);
    float square = sum(squares);
    for (; i < shape.hidden; i++) square += float(x[i]) * float(x[i]);
    float scale = sigma * std::sqrt(square);
    for (int64_t projection = 0; projection < shape.projections; projection++) {
        const T* vectors = basis + projection * rank * shape.width + shape.begins[projection];
        T* to = qkv + shape.begins[projection];
        int64_t column = 0;
        for (; column + LANES <= shape.sizes[projection]; column += LANES) {
            Floats noise{};
            for (int64_t k = 0; k < rank; k++) noise += z[projection * rank + k] * load(vectors + k * shape.width + column);
            store(to + column, noise * scale + load(to + column));
        }
        for (; column < shape.sizes[projection]; column++) {
            float noise = 0;
            for (int64_t k = 0; k < rank; k++) noise += z[projection * rank + k] * float(vectors[k * shape.width + column]);
            to[column] = rounded<T>(float(to[column]) + scale * noise);
        }
    }
}
