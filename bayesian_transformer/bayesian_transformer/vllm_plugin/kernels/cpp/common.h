// Number formats and vectors. The compiler maps the fixed-size vectors to what the processor has.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "describe.h"

constexpr int LANES = 16;
CONSTANT(LANES);
using Floats = float __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
using Ints = int32_t __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
constexpr float INFINITE = std::numeric_limits<float>::infinity();

struct bfloat16 {
    uint16_t bits;
    operator float() const { return std::bit_cast<float>(uint32_t(bits) << 16); }
    static bfloat16 from(float value) {  // to the nearest, ties to even
        uint32_t word = std::bit_cast<uint32_t>(value);
        if (value != value) return {uint16_t(word >> 16 | 0x40)};
        return {uint16_t((word + 0x7FFF + (word >> 16 & 1)) >> 16)};
    }
};

template <typename T> T rounded(float value) { return T(value); }
template <> inline bfloat16 rounded(float value) { return bfloat16::from(value); }

inline Floats splat(float value) { return Floats{} + value; }

// Through pointers, not memcpy: compilers tuned for narrower vectors copy in halves, and reading both at once then stalls.
inline Floats load(const float* from) { return *reinterpret_cast<const Floats*>(from); }
inline void store(float* to, Floats vector) { *reinterpret_cast<Floats*>(to) = vector; }

template <typename T> Floats load(const T* from) {
    Floats vector;
    for (int i = 0; i < LANES; i++) vector[i] = float(from[i]);
    return vector;
}

template <> inline Floats load(const bfloat16* from) {
    uint16_t __attribute__((vector_size(2 * LANES))) bits;
    std::memcpy(&bits, from, sizeof bits);
    return std::bit_cast<Floats>(__builtin_convertvector(bits, Ints) << 16);
}

// Every other number, the first of them at `from`.
template <typename T> Floats load_alternate(const T* from) {
    Floats vector;
    for (int i = 0; i < LANES; i++) vector[i] = float(from[2 * i]);
    return vector;
}

template <> inline Floats load_alternate(const bfloat16* from) {
    bool second = reinterpret_cast<uintptr_t>(from) % sizeof(int32_t);  // of a pair, which is one word
    Ints pairs = *reinterpret_cast<const Ints*>(from - second);
    return std::bit_cast<Floats>(second ? pairs & int32_t(0xFFFF0000) : pairs << 16);
}

// To T, to the nearest.
template <typename T> void store(T* to, Floats vector) {
    for (int i = 0; i < LANES; i++) to[i] = rounded<T>(vector[i]);
}

template <> inline void store(bfloat16* to, Floats vector) {
    using Words = uint32_t __attribute__((vector_size(4 * LANES)));
    using Halves = uint16_t __attribute__((vector_size(2 * LANES)));
    Words words = std::bit_cast<Words>(vector);
    words = vector != vector ? words >> 16 | 0x40 : (words + 0x7FFF + (words >> 16 & 1)) >> 16;  // as bfloat16::from
    Halves halves = __builtin_convertvector(words, Halves);
    std::memcpy(to, &halves, sizeof halves);
}

inline float sum(Floats vector) {
    float total = 0;
    for (int i = 0; i < LANES; i++) total += vector[i];
    return total;
}

inline float largest(Floats vector) {
    float top = vector[0];
    for (int i = 1; i < LANES; i++) top = vector[i] > top ? vector[i] : top;
    return top;
}

inline Floats larger(Floats a, Floats b) { return a > b ? a : b; }

// e^x for x <= 88, within 2 units in the last place; 0 below -87.3, where float32 has no normal numbers. NaN stays NaN.
inline Floats exponential(Floats x) {
    const Floats shift = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
    Floats power = x * 1.44269504f + shift;
    Ints exponent = std::bit_cast<Ints>(power) << 23;
    power -= shift;
    Floats f = x - power * 0.693359375f + power * 2.12194440e-4f;  // log 2 in two parts
    // Taylor's series on |f| <= log(2) / 2; the first neglected term is below 2^-27.
    Floats series = f * (1.0f / 5040) + 1.0f / 720;
    series = series * f + 1.0f / 120;
    series = series * f + 1.0f / 24;
    series = series * f + 1.0f / 6;
    series = series * f + 0.5f;
    series = series * f + 1.0f;
    series = series * f + 1.0f;
    Floats result = std::bit_cast<Floats>(std::bit_cast<Ints>(series) + exponent);
    result = x < -87.3f ? Floats{} : result;
    return x != x ? x : result;
}

// tanh x, within 2 units in the last place.
inline Floats hyperbolic_tangent(Floats x) {
    Floats size = x < 0 ? -x : x;
    size = size > 44 ? splat(44) : size;  // where tanh is 1; NaN stays NaN
    Floats large = 1.0f - 2.0f / (exponential(2.0f * size) + 1.0f);
    Floats square = x * x;  // below 0.625 the difference would lose digits: a minimax polynomial of tanh x / x, by Cephes
    Floats series = square * -5.70498872745e-3f + 2.06390887954e-2f;
    series = series * square - 5.37397155531e-2f;
    series = series * square + 1.33314422036e-1f;
    series = series * square - 3.33332819422e-1f;
    Floats small = series * square * x + x;
    return size < 0.625f ? small : x < 0 ? -large : large;
}

// log x for normal x > 0, within 2 units in the last place of max(|log x|, 1).
inline Floats logarithm(Floats x) {
    Ints bits = std::bit_cast<Ints>(x);
    Ints exponent = (bits - 0x3F3504F3) >> 23;  // x = m * 2^exponent with m in [sqrt(1/2), sqrt(2))
    Floats m = std::bit_cast<Floats>(bits - (exponent << 23));
    // log m = 2 artanh t with t = (m - 1) / (m + 1), |t| < 0.172
    Floats t = (m - 1.0f) / (m + 1.0f), square = t * t;
    Floats series = square * (1.0f / 9) + 1.0f / 7;
    series = series * square + 1.0f / 5;
    series = series * square + 1.0f / 3;
    series = series * square + 1.0f;
    return 2.0f * t * series + __builtin_convertvector(exponent, Floats) * 0.69314718f;
}
