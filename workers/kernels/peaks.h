// The largest number of each row of logits, and where it stands.
//
// A stretch of all rows is looked at by the thread that has just computed it: so it reads its own
// cache.
#pragma once
#include <algorithm>
#include <vector>

#include "lanes.h"
#include "team.h"

constexpr int STRETCH = 1024;

// The largest of some numbers; NaN if one of them is.
inline float top_of(const float* numbers, int count) {
    Vec top = all(-INFINITY), broken{};
    int i = 0;
    for (; i + LANES <= count; i += LANES) {
        const Vec x = load(numbers + i);
        top = bigger(top, x);
        broken = x == x ? broken : x;
    }
    float found = largest(top), nan = sum(broken);
    for (; i < count; i++) {
        found = std::max(found, numbers[i]);
        if (std::isnan(numbers[i])) nan = numbers[i];
    }
    return std::isnan(nan) ? nan : found;
}

// Peaks of rows [rows, width]: of equal numbers the first, and NaN above all.
inline void find_peaks(Team& team, const float* logits, int rows, int width,
                       std::vector<float>& tops, float* values, int32_t* places) {
    const int stretches = (width + STRETCH - 1) / STRETCH;
    if (tops.size() < size_t(rows) * stretches) tops.resize(size_t(rows) * stretches);
    const auto length = [&](int stretch) { return std::min(STRETCH, width - stretch * STRETCH); };
    team.share(stretches, 1, [&](int first, int last, int) {
        for (int row = 0; row < rows; row++)
            for (int i = first; i < last; i++)
                tops[size_t(row) * stretches + i] =
                    top_of(logits + size_t(row) * width + i * STRETCH, length(i));
    });
    for (int row = 0; row < rows; row++) {
        const float* own = tops.data() + size_t(row) * stretches;
        const auto higher = [](float a, float b) { return !std::isnan(a) && !(b <= a); };
        int best = 0;
        for (int i = 1; i < stretches; i++)
            if (higher(own[best], own[i])) best = i;
        const float* stretch = logits + size_t(row) * width + best * STRETCH;
        const auto is_peak = [&](float x) { return x == own[best] || std::isnan(x); };
        values[row] = own[best];
        places[row] = best * STRETCH +
                      int(std::find_if(stretch, stretch + length(best), is_peak) - stretch);
    }
}
