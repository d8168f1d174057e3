// The entry points that ../cpp.py calls: loops over requests, rows and tokens, spread over threads. What each FUNCTION
// takes is compared with the table in ../cpp_library.py when the library is loaded. Nothing here allocates more than a
// few rows per thread.
#include "attention.h"
#include "noise.h"
#include "statistics.h"

#ifdef __FLT16_MANT_DIG__
using float16 = _Float16;
#else
#error "this compiler has no 16-bit float"
#endif

// The compiler is given the names, in the order of DTYPES of ../cpp_library.py.
enum class Dtype : int64_t { DTYPES };

// Run `body(T{})` with the type that `dtype` names.
template <typename Body> void with_type(Dtype dtype, Body body) {
    if (dtype == Dtype::float32) body(float{});
    if (dtype == Dtype::bfloat16) body(bfloat16{});
    if (dtype == Dtype::float16) body(float16{});
}

FUNCTION(particle_attention, const AttentionShape* shape, Dtype dtype, const void* query, const void* key, const void* value,
         const void* cache, const int32_t* block_table, const int32_t* lengths, const int64_t* key_order,
         const int64_t* value_order, float scale, int64_t window, float soft_cap, void* output, int threads) {
    with_type(dtype, [&](auto zero) {
        using T = decltype(zero);
#pragma omp parallel for schedule(dynamic) num_threads(threads)
        for (int64_t i = 0; i < shape->requests * shape->kv_heads; i++) {
            int64_t request = i / shape->kv_heads;
            attend<T>(*shape, request, i % shape->kv_heads, (const T*)query, (const T*)key, (const T*)value, (const T*)cache,
                      block_table + request * shape->max_blocks, lengths[request] - 1, key_order, value_order, scale,
                      window, soft_cap, (T*)output);
        }
    });
}

// z [layers, noisy_samples * requests, projections, width]: right noise of a step. Row (s - 1) * requests + b is weight
// sample s of request b. sites [layers, projections].
FUNCTION(draw_noise, const int64_t* seeds, const int64_t* positions, const int64_t* sites, int64_t layers,
         int64_t noisy_samples, int64_t requests, int64_t projections, int64_t width, float* z, int threads) {
#pragma omp parallel for num_threads(threads)
    for (int64_t i = 0; i < layers * noisy_samples * requests; i++) {
        int64_t layer = i / (noisy_samples * requests), row = i % (noisy_samples * requests), request = row % requests;
        uint32_t sample = uint32_t(row / requests + 1);
        for (int64_t projection = 0; projection < projections; projection++) {
            uint32_t site = uint32_t(sites[layer * projections + projection]);
            float* to = z + (i * projections + projection) * width;
            for (int64_t start = 0; start < width; start += 4) {
                Normals normals = draw(seeds[request], positions[request], site, sample, uint32_t(start / 4));
                for (int64_t j = start; j < start + 4 && j < width; j++) to[j] = normals.z[j - start];
            }
        }
    }
}

FUNCTION(add_right_noise, const NoiseShape* shape, Dtype dtype, const void* x, const void* basis, const float* z,
         int64_t rank, float sigma, void* qkv, int threads) {
    with_type(dtype, [&](auto zero) {
        using T = decltype(zero);
#pragma omp parallel for num_threads(threads)
        for (int64_t row = 0; row < shape->requests * shape->noisy_samples; row++)
            add_right<T>(*shape, (const T*)x + row * shape->x_stride, (const T*)basis, z + row * shape->projections * rank,
                         rank, sigma, (T*)qkv + row * shape->qkv_stride);
    });
}

// qkv row += scale * z in the noisy columns; scale [noisy_samples * requests, projections], sites [projections].
FUNCTION(add_left_noise, const NoiseShape* shape, Dtype dtype, const float* scale, const int64_t* seeds,
         const int64_t* positions, const int64_t* sites, void* qkv, int threads) {
    with_type(dtype, [&](auto zero) {
        using T = decltype(zero);
#pragma omp parallel for num_threads(threads)
        for (int64_t i = 0; i < shape->requests * shape->noisy_samples * shape->projections; i++) {
            int64_t row = i / shape->projections, projection = i % shape->projections, request = row % shape->requests;
            T* to = (T*)qkv + row * shape->qkv_stride + shape->begins[projection];
            for (int64_t start = 0; start < shape->sizes[projection]; start += 4) {
                Normals normals = draw(seeds[request], positions[request], uint32_t(sites[projection]),
                                       uint32_t(row / shape->requests + 1), uint32_t((shape->starts[projection] + start) / 4));
                for (int64_t j = start; j < start + 4 && j < shape->sizes[projection]; j++)
                    to[j] = rounded<T>(float(to[j]) + scale[i] * normals.z[j - start]);
            }
        }
    });
}

// logits [num_samples, tokens, size] with the given strides, the last one 1; token_ids may be null;
// out [tokens, column::COUNT].
FUNCTION(token_uncertainties, Dtype dtype, const void* logits, int64_t sample_stride, int64_t token_stride,
         int64_t num_samples, int64_t tokens, int64_t size, const int64_t* token_ids, float* out, int threads) {
    with_type(dtype, [&](auto zero) {
        using T = decltype(zero);
#pragma omp parallel for schedule(dynamic) num_threads(threads)
        for (int64_t token = 0; token < tokens; token++) {
            std::vector<Row> rows(num_samples);
            std::vector<float> factors(num_samples);
            token_uncertainty((const T*)logits + token * token_stride, sample_stride, num_samples, size,
                              token_ids ? token_ids[token] : -1, out + column::COUNT * token, rows.data(), factors.data());
        }
    });
}
