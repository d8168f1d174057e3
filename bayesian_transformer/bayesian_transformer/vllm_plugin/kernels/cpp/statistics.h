// The statistics of ../../../uncertainty.py for one token: the logits of each sample are read twice, and nothing the size
// of the vocabulary is written.
#pragma once

#include <algorithm>

#include "common.h"
#include "describe.h"

// The columns of a row of quantities. The compiler is given their names: FIELDS of ../../../quantities.py.
namespace column {
enum : int64_t { QUANTITIES, COUNT };
}

constexpr int64_t CHUNK = 4096;  // float32 sums no longer than this; the sums of chunks are float64
constexpr int TOP_K = 20;
CONSTANT(TOP_K);
constexpr float LOG_FLOOR = -1e4f;  // as in uncertainty.py
constexpr float NOT_A_NUMBER = std::numeric_limits<float>::quiet_NaN();

struct Row {
    float top;                       // largest logit
    double total, moment, distance;  // sums of e^(x - top), of (x - top) e^(x - top), and of x - top
    double log_total() const { return std::log(total); }
    double entropy() const { return log_total() - moment / total; }
};

// Logits [i, i + LANES), -inf past the end.
template <typename T> Floats load_logits(const T* x, int64_t i, int64_t size) {
    if (i + LANES <= size) return load(x + i);
    Floats vector = splat(-INFINITE);
    for (int64_t lane = 0; i + lane < size; lane++) vector[lane] = float(x[i + lane]);
    return vector;
}

template <typename T> Row summarise(const T* x, int64_t size, bool clean) {
    Floats best = splat(-INFINITE);
    for (int64_t i = 0; i < size; i += LANES) best = larger(load_logits(x, i, size), best);
    Row row{largest(best), 0, 0, 0};
    for (int64_t start = 0; start < size; start += CHUNK) {
        Floats total{}, moment{}, distance{};
        int64_t end = std::min(start + CHUNK, size);
        for (int64_t i = start; i < end; i += LANES) {
            Floats below = load_logits(x, i, size) - row.top;
            Floats weight = exponential(below);
            total += weight;
            moment += weight * (below < LOG_FLOOR ? splat(LOG_FLOOR) : below);
        }
        row.total += sum(total);
        row.moment += sum(moment);
        if (!clean) continue;
        int64_t i = start;
        for (; i + LANES <= end; i += LANES) distance += load(x + i) - row.top;
        row.distance += sum(distance);
        for (; i < end; i++) row.distance += float(x[i]) - row.top;
    }
    return row;
}

// Entropy of the mean distribution.
template <typename T>
double mixture_entropy(const T* x, int64_t sample_stride, const Row* rows, const float* factors, int64_t num_samples,
                       int64_t size) {
    double entropy = 0;
    for (int64_t start = 0; start < size; start += CHUNK) {
        Floats sums{};
        for (int64_t i = start, end = std::min(start + CHUNK, size); i < end; i += LANES) {
            Floats mean{};
            for (int64_t s = 0; s < num_samples; s++)
                mean += exponential(load_logits(x + s * sample_stride, i, size) - rows[s].top) * factors[s];
            sums += mean < std::numeric_limits<float>::min() ? Floats{} : mean * logarithm(mean);
        }
        entropy -= sum(sums);
    }
    return entropy;
}

// Mean of the k largest of x - top.
template <typename T> double mean_of_largest(const T* x, int64_t size, float top) {
    float kept[TOP_K];  // ascending
    int64_t count = std::min<int64_t>(TOP_K, size), filled = 0;
    for (int64_t i = 0; i < size; i += LANES) {
        Floats vector = load_logits(x, i, size);
        if (filled == count && !(largest(vector) > kept[0])) continue;
        for (int64_t lane = 0; lane < LANES && i + lane < size; lane++) {
            float value = vector[lane];
            if (filled < count) {
                kept[filled++] = value;
                std::sort(kept, kept + filled);
            } else if (value > kept[0]) {
                float* place = std::lower_bound(kept + 1, kept + count, value);
                std::copy(kept + 1, place, kept);
                place[-1] = value;
            }
        }
    }
    double total = 0;
    for (int64_t i = 0; i < count; i++) total += kept[i] - top;
    return total / count;
}

// log mean_s p_s(y) - mean_s log p_s(y), and log p_0(y). 0 for a token that every sample rules out.
template <typename T>
void token_terms(const T* x, int64_t sample_stride, const Row* rows, int64_t num_samples, int64_t token, float* reward,
                 float* logprob) {
    auto log_probability = [&](int64_t s) { return double(float(x[s * sample_stride + token])) - rows[s].top - rows[s].log_total(); };
    double best = -INFINITE, mean = 0, average = 0;
    for (int64_t s = 0; s < num_samples; s++) best = std::max(best, log_probability(s));
    for (int64_t s = 0; s < num_samples; s++) {
        mean += best == -INFINITE ? 0 : std::exp(log_probability(s) - best) / num_samples;
        average += log_probability(s) / num_samples;
    }
    *logprob = float(log_probability(0));
    // A NaN among them survives in the average.
    *reward = best == -INFINITE && average == average ? 0 : float(std::log(mean) + best - average);
}

// All quantities of one token, out[column::COUNT].
template <typename T>
void token_uncertainty(const T* x, int64_t sample_stride, int64_t num_samples, int64_t size, int64_t token, float* out,
                       Row* rows, float* factors) {
    double aleatoric = 0;
    for (int64_t s = 0; s < num_samples; s++) {
        rows[s] = summarise(x + s * sample_stride, size, s == 0);
        factors[s] = float(1 / (rows[s].total * num_samples));
        aleatoric += rows[s].entropy() / num_samples;
    }
    double entropy = rows[0].entropy(), log_total = rows[0].log_total();
    double total = num_samples == 1 ? entropy : mixture_entropy(x, sample_stride, rows, factors, num_samples, size);
    bool invalid = aleatoric != aleatoric;
    out[column::total] = invalid ? NOT_A_NUMBER : float(total);
    out[column::aleatoric] = float(aleatoric);
    out[column::epistemic] = num_samples == 1 ? 0 : float(total - aleatoric);
    float &reward = out[column::implicit_reward], &logprob = out[column::logprob];
    reward = logprob = NOT_A_NUMBER;
    if (token >= 0 && token < size) token_terms(x, sample_stride, rows, num_samples, token, &reward, &logprob);
    out[column::entropy] = float(entropy);
    out[column::self_certainty] = float(log_total - rows[0].distance / size - std::log(double(size)));
    out[column::confidence] = float(log_total - mean_of_largest(x, size, rows[0].top));
}
