// Draws from the softmax of a row of logits, one number of chance for each.
#pragma once
#include <algorithm>
#include <vector>

#include "peaks.h"

// What lies so far below the peak, divided by the temperature, has no weight.
constexpr float DEPTH_MAX = 87.0f;

// Numbers as weights e^((x - peak) / temperature), and the sums of their stretches.
struct Weighed {
    std::vector<float> weights;
    std::vector<double> sums;
    double total;

    void take(const float* logits, int width, float temperature) {
        if (weights.size() < size_t(width)) weights.resize(width);
        sums.assign((width + STRETCH - 1) / STRETCH, 0);
        total = 0;
        const float peak = top_of(logits, width), factor = 1 / temperature;
        for (int stretch = 0; stretch < int(sums.size()); stretch++) {
            const int first = stretch * STRETCH, last = std::min(first + STRETCH, width);
            Vec sum_of_lanes{};
            for (int i = first; i < last; i += LANES) {
                const int count = last - i;
                Vec depth = (load_part(logits + i, count) - peak) * factor;
                // Lanes past the end are no numbers of the row.
                if (count < LANES) depth = numbers() < count ? depth : all(-INFINITY);
                const Vec weight = depth < all(-DEPTH_MAX) ? Vec{} : exponential(depth);
                store_part(weights.data() + i, weight, count);
                sum_of_lanes += weight;
            }
            sums[stretch] = sum(sum_of_lanes);
            total += sums[stretch];
        }
    }

    // The first place where the weights up to it exceed that share of their total.
    int place_of(double chance, int width) const {
        double before = 0;
        const double target = chance * total;
        int stretch = 0, found = -1;
        while (stretch + 1 < int(sums.size()) && before + sums[stretch] <= target)
            before += sums[stretch++];
        const int last = std::min((stretch + 1) * STRETCH, width);
        for (int i = stretch * STRETCH; i < last; i++) {
            before += weights[i];
            if (weights[i] > 0) found = i;
            if (before > target) return i;
        }
        // Rounding put the target at the very end: the last that can come at all.
        for (int i = last - 1; found < 0 && i >= 0; i--)
            if (weights[i] > 0) found = i;
        return found;
    }

    // Places whose weight is that of the peak times `floor`, or more, and their shares; how many.
    int at_least(float floor, int width, int64_t* places, float* shares) const {
        int found = 0;
        for (int first = 0; first < width; first += LANES) {
            const int count = std::min(LANES, width - first);
            if (largest(load_part(weights.data() + first, count)) < floor) continue;
            for (int i = first; i < first + count; i++) {
                if (weights[i] < floor) continue;
                places[found] = i;
                shares[found++] = float(weights[i] / total);
            }
        }
        return found;
    }
};
