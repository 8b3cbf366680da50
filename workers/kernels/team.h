// A few threads that share the pieces of one job after another.
//
// Each thread owns a run of pieces that lie behind one another, so that it reads memory on and on,
// and takes from the others' when its own are done: a thread that the system has put aside holds up
// the others only by the piece it was in. Between jobs helpers spin for some tens of microseconds,
// then sleep, so that an idle engine costs nothing.
#pragma once
#include <immintrin.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

class Team {
  public:
    explicit Team(int threads) : runs_(threads) {
        for (int i = 1; i < threads; i++) helpers_.emplace_back([this, i] { help(i); });
    }

    ~Team() {
        job_.store(STOP, std::memory_order_release);
        job_.notify_all();
        for (auto& helper : helpers_) helper.join();
    }

    int threads() const { return static_cast<int>(runs_.size()); }

    // work(first, last, thread) for ranges that together are [0, count), each `grain` long at
    // least. Returns when all is done. Only one thread may call it at a time.
    template <typename Work>
    void share(int count, int grain, const Work& work) {
        const int pieces_wanted = helpers_.empty() ? 1 : threads() * PIECES_PER_THREAD;
        const int pieces = std::min({(count + grain - 1) / grain, pieces_wanted, PIECES_MAX});
        if (pieces <= 1) {
            if (count > 0) work(0, count, 0);
            return;
        }
        const auto piece = [&](int index, int thread) {
            work(static_cast<int>(int64_t{count} * index / pieces),
                 static_cast<int>(int64_t{count} * (index + 1) / pieces), thread);
        };
        context_ = &piece;
        run_ = [](const void* context, int index, int thread) {
            (*static_cast<const decltype(piece)*>(context))(index, thread);
        };
        done_.store(0, std::memory_order_relaxed);
        const uint64_t job = job_.load(std::memory_order_relaxed) + 1;
        for (int i = 0; i < threads(); i++)
            runs_[i].left.store(
                make_left(job, pieces * i / threads(), pieces * (i + 1) / threads()),
                std::memory_order_release);
        job_.store(job, std::memory_order_release);
        job_.notify_all();
        work_through(0);
        for (int spins = 0; done_.load(std::memory_order_acquire) < pieces; spins++) {
            if (spins < SPINS) _mm_pause();
            else std::this_thread::yield();
        }
    }

  private:
    static constexpr int PIECES_PER_THREAD = 4;
    static constexpr int PIECES_MAX = 1 << 12;
    static constexpr int SPINS = 2000;
    static constexpr uint64_t STOP = ~uint64_t{0};

    // The job's number, the next piece and the end: read and claimed as one word, so that a late
    // thread can never take a piece of a job that has ended.
    static uint64_t make_left(uint64_t job, int next, int end) {
        return (job << 32) | (uint64_t(next) << 16) | uint64_t(end);
    }

    struct alignas(64) Run {
        std::atomic<uint64_t> left{0};
    };

    // Works until no piece is free anywhere, its own first.
    void work_through(int thread) {
        for (int i = 0; i < threads(); i++) {
            std::atomic<uint64_t>& left = runs_[(thread + i) % threads()].left;
            uint64_t seen = left.load(std::memory_order_acquire);
            while (((seen >> 16) & 0xffff) < (seen & 0xffff)) {
                const uint64_t taken = seen + (1u << 16);
                if (!left.compare_exchange_weak(seen, taken, std::memory_order_acq_rel)) continue;
                run_(context_, int((seen >> 16) & 0xffff), thread);
                done_.fetch_add(1, std::memory_order_release);
                seen = left.load(std::memory_order_acquire);
            }
        }
    }

    void help(int thread) {
        uint64_t seen = 0;
        for (;;) {
            uint64_t job = job_.load(std::memory_order_acquire);
            for (int spins = 0; job == seen && spins < SPINS; spins++) {
                _mm_pause();
                job = job_.load(std::memory_order_acquire);
            }
            if (job == seen) job_.wait(seen, std::memory_order_acquire);
            seen = job_.load(std::memory_order_acquire);
            if (seen == STOP) return;
            work_through(thread);
        }
    }

    std::atomic<uint64_t> job_{0};
    alignas(64) std::atomic<int> done_{0};
    const void* context_ = nullptr;
    void (*run_)(const void*, int, int) = nullptr;
    std::vector<Run> runs_;
    std::vector<std::thread> helpers_;
};
